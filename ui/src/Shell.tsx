/** What surrounds every page: the way to the others, the theme, the notice. */

import { Link, Outlet } from '@tanstack/react-router';
import { useState } from 'react';
import { Button } from 'react-aria-components/Button';

import { currentTheme, setTheme } from './theme';

export function Shell() {
  const [theme, chooseTheme] = useState(currentTheme);
  const other = theme === 'dark' ? 'light' : 'dark';
  return (
    <>
      <a className="skip" href="#main">
        Skip to the content
      </a>
      <header className="top">
        <span className="name">MedSearch Desktop</span>
        <nav aria-label="Pages">
          <Link to="/" activeOptions={{ exact: true, includeSearch: false }}>
            Search
          </Link>
          <Link to="/ask" activeOptions={{ includeSearch: false }}>
            Ask by image
          </Link>
          <Link to="/lists">Lists</Link>
          <Link to="/library">Library</Link>
        </nav>
        <span className="notice">Not a medical device</span>
        <Button
          className="quiet"
          onPress={() => {
            setTheme(other);
            chooseTheme(other);
          }}
        >
          {other === 'light' ? 'Light theme' : 'Dark theme'}
        </Button>
      </header>
      <main id="main" tabIndex={-1}>
        <Outlet />
      </main>
    </>
  );
}

export function NotFound() {
  return (
    <section className="message">
      <h1>No such page</h1>
      <p>
        <Link to="/">Go to the search</Link>
      </p>
    </section>
  );
}
