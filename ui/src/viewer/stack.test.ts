import { describe, expect, it } from 'vitest';

import type { StudyImage } from '../api/records';
import { presetsOf, readPlace, stackOf, writePlace } from './stack';

const image = (image_id: string, more: Partial<StudyImage> = {}): StudyImage =>
  ({ image_id, series_uid: 's', number_of_frames: 1, frame: 0, pixel_error: '', ...more }) as StudyImage;

describe('the stack of an image', () => {
  it('is its series, without what has no pixels', () => {
    const images = [image('a'), image('b', { pixel_error: 'cut off' }), image('c'), image('d', { series_uid: 't' })];
    const stack = stackOf(images, 'c');
    expect(stack.places.map((place) => place.imageId)).toEqual(['a', 'c']);
    expect(stack.index).toBe(1);
  });

  it('is every frame of its instance, those too that are not indexed', () => {
    const stack = stackOf([image('m#5', { number_of_frames: 12, frame: 4 })], 'm#5');
    expect(stack.places).toHaveLength(12);
    expect(stack.index).toBe(4);
    expect(stack.places[4]).toEqual({ imageId: 'm#5', frame: 5 });
  });

  it('is the image alone where its study is not known', () => {
    expect(stackOf([], 'x')).toEqual({ places: [{ imageId: 'x', frame: undefined }], index: 0 });
  });
});

it('names places so that they can be read again', () => {
  for (const place of [
    { imageId: '1.2/3#4', frame: 4 },
    { imageId: 'a b', frame: undefined },
  ]) {
    expect(readPlace(writePlace(place))).toEqual(place);
  }
});

describe('presets', () => {
  it('begin with the window of the header', () => {
    const presets = presetsOf('DX', { window: { center: 2000, width: 3000 }, lowest: 0, highest: 4095 });
    expect(presets[0]).toEqual({ name: 'As stored', center: 2000, width: 3000 });
    expect(presets[1]).toEqual({ name: 'All values', center: 2048, width: 4096 });
  });

  it('of CT are those of tissues', () => {
    const presets = presetsOf('CT', { window: null, lowest: -1024, highest: 3071 });
    expect(presets.map((each) => each.name)).toEqual(['All values', 'Lung', 'Soft tissue', 'Bone', 'Brain']);
  });
});
