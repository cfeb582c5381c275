// What everybody said about a closed pair: side by side where they disagree or one has flagged it, for a curator to
// choose from; and the pair's whole history. Runs in one scope with desk.js.

const DID = { accept: 'accepts', edit: 'edits', reject: 'rejects', skip: 'skips', flag: 'flags', undo: 'takes back' };
const needsCurator = (view) => view.status === 'disputed' || view.status === 'flagged';
// What a curator can choose by a digit: what was said of the pair itself.
const choices = (view) => (me.can_settle && needsCurator(view) ? view.verdicts.filter(isVerdict) : []);
const isVerdict = (verdict) => ['accept', 'edit', 'reject'].includes(verdict.action);

function showVerdicts(view) {
  const list = find('.verdicts');
  list.hidden = !needsCurator(view);
  const offered = choices(view);
  desk.dataset.choices = offered.length;
  list.replaceChildren(...(list.hidden ? [] : view.verdicts.map((verdict) => verdictCard(view, verdict, offered))));
  const events = find('.events');
  events.open = false;
  events.hidden = isOpen(view);
}

function verdictCard(view, verdict, offered) {
  const item = document.createElement('li');
  item.className = verdict.action;
  const head = document.createElement('p');
  head.className = 'verdict-head';
  const who = Object.assign(document.createElement('strong'), { textContent: verdict.reviewer });
  const reason = verdict.reason ? ': ' + verdict.reason : '';
  const did = Object.assign(document.createElement('span'), { textContent: DID[verdict.action] + reason });
  head.append(who, ' ', did);
  const text = document.createElement('p');
  text.className = 'verdict-text';
  if (verdict.action === 'edit') text.append(...diffNodes(view.draft, verdict.text));
  else if (verdict.action === 'flag') text.append('“' + verdict.note + '”');
  else if (verdict.action === 'accept') text.append('The draft as it is.');
  item.append(head, text);
  const number = offered.indexOf(verdict) + 1;
  if (number && number < 10) {
    const button = Object.assign(document.createElement('button'), { type: 'button', className: 'quiet' });
    button.dataset.choice = number;
    button.append('Choose ', Object.assign(document.createElement('kbd'), { textContent: number }));
    item.append(button);
  }
  return item;
}

// Settle the pair with what one of the reviewers said.
function chooseVerdict(number) {
  const verdict = choices(current)[number - 1];
  if (!verdict) return;
  const { action, reason, text } = verdict;
  decide(action, action === 'edit' ? { text } : action === 'reject' && reason ? { reason } : {});
  say('Settled as ' + verdict.reviewer + ' had it.');
}

async function showEvents() {
  const details = find('.events');
  const view = current;
  if (!details.open || !view) return;
  const list = details.querySelector('ol');
  list.replaceChildren('…');
  const reply = await server.pair_events({ id: view.id });
  if (current !== view || !reply) return;
  list.replaceChildren(...reply.events.map(eventLine));
}

function eventLine(event) {
  const item = document.createElement('li');
  const reason = event.reason ? ': ' + event.reason : '';
  const note = event.note ? ': “' + event.note + '”' : '';
  const who = Object.assign(document.createElement('strong'), { textContent: event.reviewer });
  const did = ' ' + DID[event.action] + (event.action === 'undo' ? ' a decision' : '') + reason + note;
  item.append(who, did + (event.settles ? ', which settles it' : ''), when(event.created_at));
  if (event.text) item.append(Object.assign(document.createElement('q'), { textContent: event.text }));
  return item;
}

function when(iso) {
  const time = new Date(iso);
  const options = { dateStyle: 'medium', timeStyle: 'short' };
  return Object.assign(document.createElement('time'), { dateTime: iso, textContent: time.toLocaleString(undefined, options) });
}
