import react from '@vitejs/plugin-react';
import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

// The server that `npm run dev` passes requests on to: `medsearch serve --port 8765`.
const SERVER = 'http://127.0.0.1:8765';

/**
 * Cornerstone writes the style of a measurement's text as an attribute, which the Content-Security-Policy refuses;
 * through the style's own interface it is let in.
 */
function stylesWithoutAttributes(): Plugin {
  const written = "textElement.setAttribute('style', combinedStyle)";
  return {
    name: 'styles-without-attributes',
    transform(code, id) {
      if (!id.includes('drawingSvg/drawTextBox.js')) return undefined;
      if (!code.includes(written))
        this.error('drawTextBox.js has changed: see whether it still writes style attributes');
      return { code: code.replace(written, 'textElement.style.cssText = combinedStyle'), map: null };
    },
  };
}

export default defineConfig({
  plugins: [react(), stylesWithoutAttributes()],
  build: {
    outDir: '../medsearch_desktop/serve/static',
    emptyOutDir: true,
    target: 'es2023',
    // The Content-Security-Policy lets in no script and no style that is not a file of this origin.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The viewer is one large part that is loaded on demand; scripts/weigh.mjs watches the rest.
    chunkSizeWarningLimit: 4000,
    manifest: true,
  },
  worker: { format: 'es' },
  server: {
    proxy: { '/api': { target: SERVER, changeOrigin: true }, '/login': { target: SERVER, changeOrigin: true } },
  },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
});
