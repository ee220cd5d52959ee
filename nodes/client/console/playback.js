// The page without a lab: it shows a recording from GET /recording or from a file.

import { find } from "./dom.js";
import * as moment from "./moment.js";
import { FILE_BYTES_MAX, Recording } from "./recording.js";
import * as services from "./services.js";

// `at`: the moment to pause at, or null to play from the start.
export async function start(at, showConnection) {
  services.leaveLab();
  for (const part of find("controls").children) if (!part.matches("h2")) part.hidden = part.id !== "replay";
  Object.assign(find("scenes-toggle"), { disabled: true, title: "A replay has no lab." });
  const load = async (name, blob) => {
    try {
      const recording = await read(blob);
      const isInside = at !== null && recording.start <= at && at <= recording.end;
      moment.open(recording, isInside ? at : null);
      find("replay-error").textContent = at === null || isInside ? "" : "The moment of this link is not in the recording.";
      showConnection("replay", "Replay");
    } catch (error) {
      find("replay-error").textContent = `${name} cannot be shown: ${error.message}.`;
    }
  };
  find("recording").addEventListener("change", ({ target }) => { if (target.files.length) load(target.files[0].name, target.files[0]); });
  showConnection("replay", "Replay: loading…");
  const response = await fetch("/recording", { mode: "same-origin", redirect: "error" }).catch(() => null);
  if (response?.ok) await load("The recording", await response.blob());
  if (moment.isLive()) showConnection("replay", "Replay: choose a recording");
}

async function read(blob) {
  if (blob.size > FILE_BYTES_MAX) throw new Error(`it has more than ${FILE_BYTES_MAX / 2 ** 20} MiB`);
  return Recording.fromLines(await blob.text());
}
