import { ApiError } from '../api/client';

/** An error as a person reads it: what happened, and what to do about it. */
export function ErrorMessage({ error, what }: { error: unknown; what: string }) {
  const body = error instanceof ApiError ? error.body : null;
  const remedy =
    error instanceof ApiError && error.status === 401
      ? 'Open the address that `medsearch serve` or `medsearch app` printed: this window is not logged in'
      : body?.remedy;
  const position = body?.query !== undefined && body.position !== undefined ? body.position : null;
  return (
    <div className="message bad" role="alert">
      <p>
        <strong>{what}:</strong> {body?.item ? `${body.item}: ` : ''}
        {error instanceof Error ? error.message : 'something unknown went wrong'}.
      </p>
      {position !== null && body?.query && (
        <p className="query">
          {body.query.slice(0, position)}
          <mark>{body.query.slice(position) || 'here'}</mark>
        </p>
      )}
      {remedy && <p>{remedy}.</p>}
    </div>
  );
}

/** Something is on its way; said to screen readers once, politely. */
export function Waiting({ what }: { what: string }) {
  return (
    <p className="waiting" role="status">
      {what} …
    </p>
  );
}
