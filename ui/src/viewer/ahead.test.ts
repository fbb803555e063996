import { afterEach, expect, test, vi } from 'vitest';

import { study as studyOf } from '../api/queries';
import type { Study } from '../api/records';
import { queries } from '../queries';
import { fetchAhead, frameAt, frames } from './ahead';

/** Answer in the place of the network, and note what was asked for. */
function serve(answers: (url: string) => Response): string[] {
  const asked: string[] = [];
  vi.stubGlobal('fetch', async (url: string) => {
    asked.push(url);
    return Promise.resolve(answers(url));
  });
  return asked;
}

const frame = (): Response =>
  new Response(Uint16Array.of(7), { headers: { 'x-rows': '1', 'x-columns': '1', 'x-bits-stored': '12' } });
const place = (imageId: string, number?: number) => ({ imageId, frame: number });

afterEach(() => {
  vi.unstubAllGlobals();
  frames.clear();
  queries.clear();
});

test('what was fetched ahead is asked for once', async () => {
  const asked = serve(frame);
  fetchAhead('one', undefined);
  fetchAhead('one', undefined);
  expect([...(await frameAt(place('one'))).values]).toEqual([7]);
  await frameAt(place('one'));
  fetchAhead('one', undefined);
  expect(asked).toEqual(['/api/images/one/frame?format=raw']);
});

test('another image than the one fetched ahead is asked for by itself', async () => {
  const asked = serve(frame);
  fetchAhead('one', undefined);
  await frameAt(place('two'));
  await frameAt(place('one'));
  expect(asked).toEqual(['/api/images/one/frame?format=raw', '/api/images/two/frame?format=raw']);
});

test('what failed ahead is asked for anew, and then told', async () => {
  const gone = () => Response.json({ error: { kind: 'not_found', message: 'gone' } }, { status: 404 });
  let answer = gone;
  const asked = serve(() => answer());
  fetchAhead('one', undefined);
  await vi.waitFor(() => expect(asked).toHaveLength(1));
  await new Promise((done) => setTimeout(done));
  await expect(frameAt(place('one'))).rejects.toThrow('gone');
  answer = frame;
  expect((await frameAt(place('one'))).rows).toBe(1);
});

test('of a study that is not known yet nothing is fetched; of a known one the frame that will be shown', async () => {
  const asked = serve(frame);
  fetchAhead('cine', 'study');
  expect(asked).toEqual([]);
  const image = { image_id: 'cine', series_uid: 's', number_of_frames: 9, frame: 4, pixel_error: '' };
  queries.setQueryData(studyOf('study').queryKey, { images: [image] } as unknown as Study);
  fetchAhead('cine', 'study');
  await frameAt(place('cine', 5));
  expect(asked).toEqual(['/api/images/cine/frame?format=raw&frame=5']);
});
