/** Requests to the local server: JSON in and out, its errors as `ApiError`. */

import type { ErrorBody } from './records';

/** What the server says of a request that it could not answer; `status` is 0 where no server answered. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly body: ErrorBody,
  ) {
    super(body.message);
    this.name = 'ApiError';
  }
}

type Parameters = Record<string, string | number | boolean | undefined>;

/** The address of a route with its query parameters; empty and undefined ones are left out. */
export function address(route: string, parameters: Parameters = {}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== '') query.set(name, String(value));
  }
  const text = query.toString();
  return `/api${route}${text ? `?${text}` : ''}`;
}

/** The answer to a request, whatever its media type. Throws ApiError; an abort passes through. */
export async function request(url: string, options: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { credentials: 'same-origin', ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, {
      kind: 'unreachable',
      message: 'the program does not answer',
      remedy: 'Start it again with `medsearch serve`, and open the address that it prints',
    });
  }
  if (!response.ok) throw new ApiError(response.status, await errorOf(response));
  return response;
}

/** GET a route as JSON. */
export async function get<Answer>(route: string, parameters: Parameters = {}, signal?: AbortSignal): Promise<Answer> {
  const response = await request(address(route, parameters), { signal: signal ?? null });
  return (await response.json()) as Answer;
}

/** POST a JSON body to a route. */
export async function post<Answer>(route: string, body?: unknown): Promise<Answer> {
  const response = await request(address(route), {
    method: 'POST',
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
  });
  return (await response.json()) as Answer;
}

async function errorOf(response: Response): Promise<ErrorBody> {
  try {
    const value = (await response.json()) as { error?: Partial<ErrorBody> };
    if (value.error?.message) return { kind: 'unknown', ...value.error, message: value.error.message };
  } catch {
    // Not JSON: the status says what there is to say.
  }
  return { kind: 'unknown', message: `the server answered with status ${response.status}` };
}
