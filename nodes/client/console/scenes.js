// The guided scenes, in their order.

import { addScenes as add } from "./player.js";
import * as faults from "./scenes-faults.js";
import * as reads from "./scenes-reads.js";

export const addScenes = (options) => add({ ...reads.SCENES, ...faults.SCENES }, options);
