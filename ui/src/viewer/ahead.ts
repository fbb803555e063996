/** The pixels that the viewer holds, and those of one image that are fetched before it is there to ask for them. */

import { study as studyOf } from '../api/queries';
import { queries } from '../queries';
import { type Frame, loadFrame } from './frames';
import { type Place, stackOf, writePlace } from './stack';

/** The frames that the viewer holds, by the names of their places. */
export const frames = new Map<string, Frame>();

let ahead: { name: string; frame: Promise<Frame> } | null = null;

/** Begin to fetch the pixels that the viewer will show of an image, of a study that is known by now or of none. */
export function fetchAhead(imageId: string, uid: string | undefined): void {
  const known = uid === undefined ? undefined : queries.getQueryData(studyOf(uid).queryKey);
  // Without its study nobody can tell which frame of it will be wanted.
  if (uid !== undefined && known === undefined) return;
  const stack = stackOf(known?.images ?? [], imageId);
  const place = stack.places[stack.index];
  if (place === undefined) return;
  const name = writePlace(place);
  if (ahead?.name === name || frames.has(name)) return;
  const frame = loadFrame(place.imageId, place.frame);
  ahead = { name, frame };
  // What failed is asked for anew by whoever wants it, who is then told.
  frame.catch(() => {
    if (ahead?.frame === frame) ahead = null;
  });
}

/** Return the pixels of a place: those that are held, those fetched ahead, or else from the server. Throws ApiError. */
export async function frameAt(place: Place): Promise<Frame> {
  const name = writePlace(place);
  const known = frames.get(name);
  if (known !== undefined) return known;
  let coming = ahead?.name === name ? ahead.frame : undefined;
  if (coming === undefined) coming = loadFrame(place.imageId, place.frame);
  else ahead = null;
  const frame = await coming;
  frames.set(name, frame);
  return frame;
}

/** Call `load` when the browser has nothing else to do. */
export function whenIdle(load: () => void): void {
  // Safari's engine, which the window uses on macOS, has no idle callbacks.
  if ('requestIdleCallback' in window) requestIdleCallback(load, { timeout: 3000 });
  else setTimeout(load, 500);
}
