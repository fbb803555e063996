/** A file from outside as the server sees it: a picture to show, and the size in which a region of it is given. */

import { queryOptions } from '@tanstack/react-query';

import { address, request } from '../api/client';

export interface Preview {
  address: string;
  width: number;
  height: number;
}

/** Draws a file that is not of the library; it is sent and not kept. */
// The picture that was drawn last is the one that is shown; the room of the one before is given back.
let drawn = '';

export const preview = (file: File | null, number: number) =>
  queryOptions({
    queryKey: ['preview', number],
    queryFn: async ({ signal }): Promise<Preview> => {
      const response = await request(address('/preview', { max: 1024 }), {
        method: 'POST',
        body: file,
        headers: { 'content-type': 'application/octet-stream' },
        signal,
      });
      const side = (name: string) => Number(response.headers.get(name));
      const picture = await response.blob();
      URL.revokeObjectURL(drawn);
      drawn = URL.createObjectURL(picture);
      return { address: drawn, width: side('x-columns'), height: side('x-rows') };
    },
  });
