import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

// The server that `npm run dev` passes requests on to: `medsearch serve --port 8765`.
const SERVER = 'http://127.0.0.1:8765';

export default defineConfig({
  plugins: [react()],
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
