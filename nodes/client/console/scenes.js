// The guided scenes, in their order.

import { addScenes, startPlayer } from "./player.js";
import * as faults from "./scenes-faults.js";
import * as reads from "./scenes-reads.js";

let hasLog = false;

export function start(options) {
  startPlayer();
  addScenes({ ...reads.SCENES, ...faults.SCENES }, options);
}

// Those that need a log server with Sentinels.
export function offerLog(options) {
  if (!hasLog) addScenes(faults.LOG_SCENES, options);
  hasLog = true;
}
