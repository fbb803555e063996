/** Names and values, one pair a row of a description list; pairs without a value are left out. */
export const Facts = ({ rows }: { rows: readonly (readonly [name: string, value: string])[] }) =>
  rows
    .filter(([, value]) => value !== '')
    .map(([name, value]) => (
      <div key={name}>
        <dt>{name}</dt>
        <dd>{value}</dd>
      </div>
    ));
