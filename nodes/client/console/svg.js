// Draws the picture of the lanes as the text of an SVG document.

import { STYLES } from "./picture.js";

// `picture` and `view` are those of picture.js, `colors` the values of console.css by name: those of the styles, and paper.
export function svg({ marks, clip, unit }, { width, height }, colors) {
  const [x, y, across, down] = clip.map(short);
  const draw = (clipped) => marks.filter((mark) => Boolean(mark.clipped) === clipped).map((mark) => shape(mark, unit, colors));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${short(width)}" height="${short(height)}" viewBox="0 0 ${short(width)} ${short(height)}" font-family="system-ui, sans-serif">`,
    `<clipPath id="lanes"><rect x="${x}" y="${y}" width="${across}" height="${down}"/></clipPath>`,
    `<rect width="100%" height="100%" fill="${escape(colors.paper)}"/>`,
    ...draw(false),
    '<g clip-path="url(#lanes)">',
    ...draw(true),
    "</g>",
    "</svg>",
    "",
  ].join("\n");
}

function shape(mark, unit, colors) {
  const { color, width = 1, dash = [], size = 16, weight = 400, fill } = STYLES[mark.style];
  const paint = escape(colors[color]);
  if (mark.shape === "texts") {
    const anchor = { left: "start", center: "middle", right: "end" }[mark.align];
    const texts = mark.texts.map(([text, x, y]) => `<text x="${short(x)}" y="${short(y)}">${escape(text)}</text>`);
    return `<g data-style="${mark.style}" fill="${paint}" font-size="${short(size * unit)}" font-weight="${weight}" text-anchor="${anchor}" dominant-baseline="central">${texts.join("")}</g>`;
  }
  const dashes = dash.length ? ` stroke-dasharray="${dash.map((length) => short(length * unit)).join(" ")}"` : "";
  const look = fill ? `fill="${paint}"` : `fill="none" stroke="${paint}" stroke-width="${short(width * unit)}"${dashes}`;
  return `<path data-style="${mark.style}" ${look} d="${PATH[mark.shape](mark)}"/>`;
}

const PATH = {
  lines: ({ ends }) => groups(ends, 4).map(([x1, y1, x2, y2]) => `M${x1} ${y1}L${x2} ${y2}`).join(""),
  circles: ({ centers, radius }) => groups(centers, 2).map(([x, y]) => `M${short(x - radius)} ${y}${half(radius, 2)}${half(radius, -2)}z`).join(""),
  rects: ({ boxes }) => groups(boxes, 4).map(([x, y, width, height]) => `M${x} ${y}h${width}v${height}h${-width}z`).join(""),
  polygons: ({ polygons }) => polygons.map((corners) => `M${groups(corners, 2).map((corner) => corner.join(" ")).join("L")}z`).join(""),
};

const half = (radius, diameters) => `a${short(radius)} ${short(radius)} 0 1 0 ${short(radius * diameters)} 0`;

function groups(numbers, size) {
  const found = [];
  for (let at = 0; at < numbers.length; at += size) found.push(numbers.slice(at, at + size).map(short));
  return found;
}

const short = (number) => Number(number.toFixed(2)) + 0;
const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
// XML has no place for control characters.
const escape = (text) => String(text).replace(/[&<>"\p{Cc}\p{Cs}\uFFFE\uFFFF]/gu, (character) => ENTITIES[character] ?? "·");
