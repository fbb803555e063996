/** The dark theme, which a reading room wants, or the light one; remembered by this browser. */

export type Theme = 'dark' | 'light';

const KEY = 'medsearch-theme';

export const currentTheme = (): Theme => (document.documentElement.dataset.theme === 'light' ? 'light' : 'dark');

export function setTheme(theme: Theme): void {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Storage may be forbidden; the theme then holds for this window.
  }
}

export function restoreTheme(): void {
  try {
    if (localStorage.getItem(KEY) === 'light') setTheme('light');
  } catch {
    // See above.
  }
}
