// Runs once when the page is loaded: a link to pairs opens the Review tab, and a reload the tab that was open, in this
// window only.
() => {
  const KEY = 'facellm.tab';
  const tabs = document.querySelector('#studio-tabs');
  const buttons = () => [...tabs.querySelectorAll('[role="tab"]')];
  const name = (button) => button?.textContent.trim();
  const reloaded = performance.getEntriesByType('navigation')[0]?.type === 'reload';
  const linked = !reloaded && new URL(window.location).searchParams.has('review') ? 'Review' : null;
  try {
    const remember = () => {
      const open = name(buttons().find((button) => button.ariaSelected === 'true'));
      if (open) sessionStorage.setItem(KEY, open);
    };
    new MutationObserver(remember).observe(tabs, { subtree: true, attributeFilter: ['aria-selected'] });
    const wanted = linked ?? sessionStorage.getItem(KEY);
    buttons().find((button) => name(button) === wanted)?.click();
  } catch (error) {
    console.warn('The browser keeps nothing for this page, so a reload opens the first tab.', error);
  }
}
