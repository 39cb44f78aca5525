// Drawn here, so that nothing is loaded.

import { svg } from "./dom.js";

const PATHS = {
  bucket: "M4 6h16l-2 13a2 2 0 0 1-2 1.700H8A2 2 0 0 1 6 19zM3 6h18",
  folder: "M3 7a2 2 0 0 1 2-2h4l2 2.500h8a2 2 0 0 1 2 2V17a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2z",
  file: "M6 3h8l4 4v12a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2V5a2 2 0 0 1 2-2zM14 3v4h4",
  user: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4 21a8 6.500 0 0 1 16 0",
};

export const icon = (name) => svg("svg", { viewBox: "0 0 24 24", class: `icon ${name}`, "aria-hidden": "true" }, svg("path", { d: PATHS[name] }));
