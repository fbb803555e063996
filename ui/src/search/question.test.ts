import { describe, expect, it } from 'vitest';

import { compose, readChoice, replace, toggle } from './question';

describe('compose', () => {
  it('leaves what is typed alone where nothing is chosen', () => {
    expect(compose(' effusion OR edema ', [])).toBe('effusion OR edema');
  });

  it('keeps an OR of the typed words apart from what is chosen', () => {
    expect(compose('effusion OR edema', ['modality:CR'])).toBe('(effusion OR edema) modality:CR');
  });

  it('takes values of one field as alternatives, fields together', () => {
    expect(compose('', ['view:PA', 'sex:F', 'view:AP'])).toBe('(view:PA OR view:AP) sex:F');
  });

  it('asks for a state so that it finds what the facet counted', () => {
    expect(compose('', ['present:J90'])).toBe('present:J90');
    expect(compose('', ['absent:J90'])).toBe('(absent:J90 NOT present:J90 NOT uncertain:J90)');
    expect(compose('', ['never:J90'])).toBe('NOT (present:J90 OR absent:J90 OR uncertain:J90)');
  });

  it('takes two states of one code as alternatives, two codes together', () => {
    expect(compose('', ['present:J90', 'uncertain:J90', 'present:J93.9'])).toBe(
      '(present:J90 OR (uncertain:J90 NOT present:J90)) present:J93.9',
    );
  });

  it('writes names of findings, decades and dates as the query language reads them', () => {
    expect(compose('', ['present:Pleural_Thickening'])).toBe('present:"Pleural Thickening"');
    expect(compose('', ['age:60-69'])).toBe('age:60..69');
    expect(compose('', ['from:2024-01-31', 'to:2024-02-29'])).toBe('date:>=2024-01-31 date:<=2024-02-29');
  });

  it('quotes a label so that nothing in it is read as a query', () => {
    expect(compose('', ['label:follow up) OR (x"y'])).toBe('label:"follow up) OR (x y"');
  });

  it('ignores what is no choice', () => {
    expect(compose('edema', ['nonsense', ':', 'view:'])).toBe('edema');
  });
});

describe('choices', () => {
  it('reads a value with colons', () => {
    expect(readChoice('label:a:b')).toEqual({ key: 'label', value: 'a:b' });
  });

  it('toggles and replaces', () => {
    expect(toggle(['view:PA'], { key: 'view', value: 'PA' })).toEqual([]);
    expect(toggle([], { key: 'view', value: 'PA' })).toEqual(['view:PA']);
    expect(replace(['from:2023', 'sex:F'], 'from', '2024')).toEqual(['sex:F', 'from:2024']);
    expect(replace(['from:2023'], 'from', '')).toEqual([]);
  });
});
