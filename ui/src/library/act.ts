/** Asks the server to do something, says where that failed, and has the page look again. */
export type Act = (path: string, body?: unknown) => Promise<void>;
