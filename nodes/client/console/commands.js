// The redis-cli commands that show an entry. Names are data, so they are quoted for the shell where that is necessary.

const PLAIN = /^[\w:.,@%+=/-]+$/;

const quoted = (word) => (PLAIN.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

export function commands(log, position, names) {
  const line = (...words) => ["redis-cli", ...words].map(quoted).join(" ");
  return [
    line("XRANGE", log, position, position),
    ...names.map((name) => line("XPENDING", log, name, position, position, "1")),
    line("XINFO", "GROUPS", log),
  ];
}
