// Runs once when the page is loaded: a reload opens the tab that was open, in this window only.
() => {
  const KEY = 'facellm.tab';
  const tabs = document.querySelector('#studio-tabs');
  const buttons = () => [...tabs.querySelectorAll('[role="tab"]')];
  const name = (button) => button?.textContent.trim();
  try {
    const stored = sessionStorage.getItem(KEY);
    buttons().find((button) => name(button) === stored)?.click();
    const remember = () => {
      const open = name(buttons().find((button) => button.ariaSelected === 'true'));
      if (open) sessionStorage.setItem(KEY, open);
    };
    new MutationObserver(remember).observe(tabs, { subtree: true, attributeFilter: ['aria-selected'] });
  } catch (error) {
    console.warn('The browser keeps nothing for this page, so a reload opens the first tab.', error);
  }
}
