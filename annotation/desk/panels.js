// What opens over the desk: the keys, my last decisions, the guidelines. Runs in one scope with desk.js; the guidelines'
// HTML comes from the server, which lets no markup through but that of Markdown.

const LISTED = 60; // decisions
const KEY_HELP = [
  ['A', 'Accept'],
  ['E', 'Edit; Ctrl+Enter saves and goes on, Esc cancels'],
  ['R', 'Reject; then a digit for the reason'],
  ['S', 'Skip'],
  ['F', 'Flag for a curator, with a note'],
  ['Z', 'Take back my last decision'],
  ['← →', 'The pair before, the next one'],
  ['1 … 9', 'Choose a verdict (curators)'],
  ['D', 'Show or hide what an edit changed'],
  ['+ − 0', 'Nearer, further, the whole face; also wheel, pinch and drag'],
  ['G', 'Many faces at once'],
  ['X', 'There: mark as bad; arrows move, digits say why'],
  ['Enter', 'There: accept the rest; also Shift+A'],
  ['/', 'Search'],
  ['H', 'My last decisions'],
  ['I', 'Guidelines'],
  ['?', 'This list'],
];

const openDialog = () => element.querySelector('dialog[open]');

function showDialog(name) {
  stopWriting();
  find('dialog.' + name).showModal();
}

function closeDialog() {
  if (guidelinesUnsaved()) return; // Cancel says that they are to go
  openDialog()?.close();
}

function fillHelp() {
  find('.keys').replaceChildren(
    ...KEY_HELP.flatMap(([key, what]) => {
      const term = document.createElement('dt');
      term.append(...key.split(' ').map((each) => Object.assign(document.createElement('kbd'), { textContent: each })));
      return [term, Object.assign(document.createElement('dd'), { textContent: what })];
    }),
  );
}

// ---- my last decisions

async function showHistory() {
  showDialog('history');
  const list = find('.history-list');
  const newest = undoable.slice(-LISTED).reverse();
  if (!newest.length) return list.replaceChildren('Nothing yet.');
  list.replaceChildren('…');
  const reply = await server.recall({ ids: newest.map((entry) => entry.pairId), known: [...images.keys()] });
  if (!reply) return list.replaceChildren('The server does not answer. Try again in a moment.');
  keepImages(reply.images);
  const views = new Map(reply.pairs.map((view) => [view.id, view]));
  list.replaceChildren(...newest.filter((entry) => views.has(entry.pairId)).map((entry) => historyLine(entry, views.get(entry.pairId))));
}

function historyLine(entry, view) {
  const item = document.createElement('li');
  const button = Object.assign(document.createElement('button'), { type: 'button' });
  button.dataset.open = view.id;
  const picture = Object.assign(new Image(), { alt: '' });
  if (sources.get(view.image)) picture.src = sources.get(view.image);
  const did = Object.assign(document.createElement('span'), { className: 'badge ' + STATUS_AFTER[entry.action] });
  did.textContent = STATUS_AFTER[entry.action] + (entry.reason ? ': ' + entry.reason : '');
  const topic = Object.assign(document.createElement('span'), { className: 'topic', textContent: view.topic });
  const text = Object.assign(document.createElement('span'), { className: 'history-text', textContent: view.answer });
  button.append(picture, topic, did, when(entry.at), text);
  item.append(button);
  return item;
}

// ---- guidelines

let guidelinesText = '';
let previewing = null;
const editsGuidelines = () => !find('.guidelines-edit').hidden;
const guidelinesUnsaved = () => editsGuidelines() && find('.guidelines-text').value !== guidelinesText;

async function showGuidelines() {
  showDialog('guidelines');
  editGuidelines(false);
  const reply = await server.guidelines({});
  if (!reply) return (find('.guidelines-view').textContent = 'The server does not answer. Try again in a moment.');
  fillGuidelines(reply);
}

function fillGuidelines({ text, html }) {
  guidelinesText = text;
  find('.guidelines-view').innerHTML = html || '<p class="none"></p>';
  const none = find('.guidelines-view .none');
  if (none) none.textContent = me.can_settle ? 'No guidelines yet. Press Edit to write them.' : 'No guidelines yet.';
  for (const link of find('.guidelines-view').querySelectorAll('a')) Object.assign(link, { target: '_blank', rel: 'noopener noreferrer' });
  find('[data-do="edit-guidelines"]').hidden = !me.can_settle || editsGuidelines();
}

function editGuidelines(on) {
  find('.guidelines-edit').hidden = !on;
  find('dialog.guidelines').classList.toggle('edits', on);
  find('[data-do="edit-guidelines"]').hidden = on || !me.can_settle;
  find('.guidelines-error').textContent = '';
  if (!on) return;
  find('.guidelines-text').value = guidelinesText;
  find('.guidelines-text').focus();
}

function previewGuidelines() {
  clearTimeout(previewing);
  previewing = setTimeout(async () => {
    const reply = await server.guidelines({ text: find('.guidelines-text').value });
    if (reply && editsGuidelines()) find('.guidelines-view').innerHTML = reply.html;
  }, 250);
}

async function saveGuidelines() {
  const reply = await server.save_guidelines({ text: find('.guidelines-text').value });
  if (!reply || reply.error) {
    find('.guidelines-error').textContent = reply?.error ?? 'The server does not answer; your text is still here.';
    return;
  }
  editGuidelines(false);
  fillGuidelines(reply);
}

async function cancelGuidelines() {
  editGuidelines(false);
  fillGuidelines((await server.guidelines({ text: guidelinesText })) ?? { text: guidelinesText, html: '' });
}
