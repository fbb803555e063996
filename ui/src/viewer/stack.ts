/** Which frames are scrolled through together, and in which windows. */

import type { StudyImage } from '../api/records';
import type { FrameWindow } from './frames';

/** One place in a stack: an image of the library, or a frame of its instance that the library did not index. */
export interface Place {
  imageId: string;
  frame: number | undefined;
}

export interface Stack {
  places: Place[];
  /** Where the image that was asked for is among them. */
  index: number;
}

const PREFIX = 'medsearch:';

/** The name under which Cornerstone knows a place, and back. */
export const writePlace = ({ imageId, frame }: Place): string =>
  `${PREFIX}${encodeURIComponent(imageId)}/${frame ?? ''}`;

export function readPlace(name: string): Place {
  const [id = '', frame = ''] = name.slice(PREFIX.length).split('/');
  return { imageId: decodeURIComponent(id), frame: frame === '' ? undefined : Number(frame) };
}

/**
 * The stack of an image: every frame of a multi-frame instance, or else its series in the order of instances.
 *
 * The images are in the order of series, instance and frame. Those without pixels are left out.
 */
export function stackOf(images: readonly StudyImage[], imageId: string): Stack {
  const image = images.find((each) => each.image_id === imageId);
  if (image === undefined) return { places: [{ imageId, frame: undefined }], index: 0 };
  if (image.number_of_frames > 1) {
    const places = Array.from({ length: image.number_of_frames }, (_, index) => ({ imageId, frame: index + 1 }));
    return { places, index: image.frame };
  }
  const series = images.filter(
    (each) => each.series_uid === image.series_uid && each.number_of_frames === 1 && !each.pixel_error,
  );
  const places = series.map((each) => ({ imageId: each.image_id, frame: undefined }));
  const index = series.findIndex((each) => each.image_id === imageId);
  return index < 0 ? { places: [{ imageId, frame: undefined }], index: 0 } : { places, index };
}

export interface Preset extends FrameWindow {
  name: string;
}

const CT: Preset[] = [
  { name: 'Lung', center: -600, width: 1500 },
  { name: 'Soft tissue', center: 40, width: 400 },
  { name: 'Bone', center: 480, width: 2500 },
  { name: 'Brain', center: 40, width: 80 },
];

/** The windows that are offered for an image: its own, all values, and those of the modality. */
export function presetsOf(
  modality: string,
  frame: { window: FrameWindow | null; lowest: number; highest: number },
): Preset[] {
  const all = {
    name: 'All values',
    center: (frame.lowest + frame.highest + 1) / 2,
    width: Math.max(1, frame.highest - frame.lowest + 1),
  };
  const own = frame.window === null ? all : { name: 'As stored', ...frame.window };
  const first = frame.window === null ? [all] : [own, all];
  if (modality === 'CT') return [...first, ...CT];
  const narrow = { name: 'More contrast', center: own.center, width: own.width / 2 };
  const wide = { name: 'Less contrast', center: own.center, width: own.width * 2 };
  return [...first, narrow, wide];
}
