// Who is signed in, at the top of the page, and the two forms for it. Signing in or out loads the page anew, so that
// every tab shows what this person may do; studio.js opens the same tab again.
// Surprising: a server function that raises, or cannot be reached, resolves to `undefined` and never rejects.

const bar = element.querySelector('.account');
const find = (selector) => bar.querySelector(selector);
const open = find('.open');
const signIn = find('dialog.sign-in');
const own = find('dialog.own');

async function ask(route, body) {
  try {
    const reply = await fetch(`account/${route}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
    });
    const told = await reply.json();
    return reply.ok ? told : { error: told.error ?? 'That did not work. Try again.' };
  } catch (error) {
    return { error: 'The server cannot be reached. Try again in a moment.' };
  }
}

async function submit(dialog, route, body, done) {
  const buttons = dialog.querySelectorAll('button');
  const error = dialog.querySelector('.error');
  error.textContent = '';
  for (const button of buttons) button.disabled = true;
  const reply = await ask(route, body);
  for (const button of buttons) button.disabled = false;
  if (reply.error) error.textContent = reply.error;
  else done(reply);
}

function show(me) {
  const signed = Boolean(me.name);
  for (const each of bar.querySelectorAll('.name')) each.textContent = me.name;
  for (const each of bar.querySelectorAll('.role')) each.textContent = me.role;
  find('input[name=username]').value = me.name;
  find('.who').hidden = !(me.way === 'huggingface' && signed);
  open.hidden = me.way !== 'local';
  open.textContent = signed ? `${me.name} · ${me.role}` : 'Sign in';
  open.setAttribute('aria-label', signed ? `Your account: ${me.name}, ${me.role}` : 'Sign in');
  open.onclick = () => (signed ? own : signIn).showModal();
  bar.dataset.state = me.way === 'none' ? 'none' : signed ? 'in' : 'out';
}

signIn.querySelector('form').addEventListener('submit', (event) => {
  event.preventDefault();
  const { name, password } = Object.fromEntries(new FormData(event.target));
  submit(signIn, 'sign-in', { name: name.trim(), password }, () => location.reload());
});

own.querySelector('form').addEventListener('submit', (event) => {
  event.preventDefault();
  const form = event.target;
  const given = Object.fromEntries(new FormData(form));
  submit(own, 'password', { password: given.password, new: given.new }, () => {
    form.querySelector('details').open = false;
    form.elements.password.value = form.elements.new.value = '';
    own.querySelector('.error').textContent = 'Changed. You are signed out everywhere else.';
  });
});

find('.out').addEventListener('click', () => submit(own, 'sign-out', {}, () => location.reload()));
for (const dialog of [signIn, own]) {
  dialog.querySelector('.cancel').addEventListener('click', () => dialog.close());
  dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
  dialog.addEventListener('keydown', (event) => event.stopPropagation()); // no key of a form is one of the desk
}

(async () => {
  for (let wait = 500; ; wait = Math.min(2 * wait, 8000)) {
    const me = await server.me({});
    if (me) return show(me);
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
})();
