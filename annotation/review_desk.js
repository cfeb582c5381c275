// The review desk: shows a pair, turns a key into a decision, and shows the next pair at once from what was fetched
// ahead. Runs once for each time Gradio mounts the component, after review_outbox.js and review_view.js in one scope
// with them; Gradio provides `element`, `props` and `server`.

const AHEAD = 20; // pairs asked for at a time
const LOW = 12; // ask for more when fewer are left
const KEPT_IMAGES = 200;
const STATUS_AFTER = { accept: 'accepted', edit: 'edited', reject: 'rejected', skip: 'skipped' };
const START = { after: 0, below: null };
const KEYS = { a: 'accept', e: 'edit', r: 'reject', s: 'skip', z: 'undo' };

const find = (selector) => element.querySelector(selector);
const desk = find('.desk');
const editor = find('.editor');
const FILTER_KEY = 'facellm.review.filter'; // in sessionStorage: for a reload, in this window only
const filter = { attribute: '', status: 'pending', order: 'in order' };
const images = new Map(); // SHA-256 → a decoded <img>
let queue = [];
let current = null;
let shownAt = 0;
let undoable = []; // {uuid, pairId, view, before}, oldest first; view is null for decisions of an earlier page
let lastRejection = null; // {view, entry}: the one that a digit gives its reason to
let counts = { all: {}, flagged: {} }; // each attribute → status → number
let cursor = START; // the last pair that was fetched, and how suspicious it is
let exhausted = false;
let fetching = null; // a token; a reply to an older one is dropped
let retry = null; // the timer of the next attempt, while the server is away
let serverAway = false;

const outbox = new Outbox(
  'facellm.review.' + props.reviewer + '.',
  (decision) => server.decide(decision),
  { saved: applyReply, refused: showRefusal, changed: showSaving },
);

// ---- fetching ahead

// `anew`: also where enough pairs are waiting, since the counts come along.
async function refill(anew = false) {
  if (fetching || (!anew && (exhausted || queue.length >= LOW))) return;
  const token = (fetching = {});
  const unsent = outbox.items.map((item) => item.decision.pair_id);
  const reply = await server.next_pairs({
    ...filter,
    ...cursor,
    exclude: [...new Set([...queue.map((view) => view.id), ...(current ? [current.id] : []), ...unsent])],
    limit: AHEAD,
    known: [...images.keys()],
  });
  if (fetching !== token) return;
  fetching = null;
  setAway(reply === undefined);
  if (reply === undefined) {
    retry ??= setTimeout(() => ((retry = null), refill()), 2000);
    if (!current) showPanel();
    return;
  }
  receive(reply);
  if (!current) advance();
  refill();
}

function receive(reply) {
  keepImages(reply.images);
  if (!outbox.items.length) counts = reply.counts;
  queue.push(...reply.pairs);
  if (reply.pairs.length === AHEAD) {
    cursor = { after: reply.pairs.at(-1).id, below: reply.pairs.at(-1).suspicion };
  } else if (filter.status === 'pending' && cursor !== START) {
    cursor = START; // pairs that others gave back lie behind us: look once from the start
  } else {
    exhausted = true;
  }
  showCounts();
}

function keepImages(sources) {
  for (const [sha256, source] of Object.entries(sources)) {
    const image = new Image();
    image.decoding = 'sync';
    image.alt = source ? 'The face that the question is about' : 'The image file is missing';
    image.draggable = false;
    if (source) image.src = source;
    image.decode().catch(() => {}); // a broken file shows its alternative text
    images.set(sha256, image);
  }
  const inUse = new Set([current, ...queue].filter(Boolean).map((view) => view.image));
  for (const sha256 of images.keys()) {
    if (images.size <= KEPT_IMAGES) break;
    if (!inUse.has(sha256)) images.delete(sha256);
  }
}

function restart() {
  queue = [];
  current = null;
  cursor = START;
  exhausted = false;
  fetching = null;
  lastRejection = null;
  stopEditing();
  advance();
}

// ---- deciding

function advance() {
  current = null;
  const next = queue.shift();
  if (next) show(next);
  else showPanel();
  refill();
}

function decide(action, extra = {}) {
  const view = current;
  const entry = { uuid: newUuid(), pairId: view.id, view, before: { status: view.status, answer: view.answer, flags: view.flags } };
  const milliseconds = Math.round(performance.now() - shownAt);
  send(view, { uuid: entry.uuid, action, milliseconds, ...extra });
  undoable.push(entry);
  setStatus(view, STATUS_AFTER[action]);
  if (action === 'edit') Object.assign(view, { answer: extra.text, flags: [] }); // the server checks the new text
  lastRejection = action === 'reject' ? { view, entry } : null;
  advance();
  say(action === 'reject' ? '' : capital(view.status) + '.');
}

// Every stored event raises the pair's revision by one, so the next one can be made before this one is acknowledged.
function send(view, decision) {
  outbox.add({ ...decision, pair_id: view.id, image_sha256: view.image, revision: view.revision, others: view.others });
  view.revision += 1;
}

function skip() {
  if (current.status === 'pending') decide('skip');
  else advance(); // a decided pair that is only looked at stays as it is
}

function giveReason(reason) {
  const { view, entry } = lastRejection;
  const uuid = newUuid();
  send(view, { uuid, action: 'reject', reason, undoes: entry.uuid });
  entry.uuid = uuid;
  lastRejection = null;
  say('Rejected: ' + reason + '.');
}

async function undo() {
  const entry = undoable.at(-1);
  if (!entry) return say('There is nothing to undo.');
  if (!entry.view || !images.has(entry.view.image)) {
    const reply = await server.recall({ ids: [entry.pairId], known: [...images.keys()] });
    setAway(reply === undefined);
    if (!reply?.pairs.length || undoable.at(-1) !== entry) return;
    keepImages(reply.images);
    entry.view = reply.pairs[0];
  }
  undoable.pop();
  const view = entry.view;
  send(view, { uuid: newUuid(), action: 'undo', undoes: entry.uuid });
  if (entry.before) Object.assign(view, { answer: entry.before.answer, flags: entry.before.flags });
  setStatus(view, entry.before?.status ?? 'pending');
  queue = queue.filter((waiting) => waiting.id !== view.id);
  if (current && current.id !== view.id) queue.unshift(current);
  lastRejection = null;
  show(view);
  say('Taken back: your decision about this pair.');
}

function setStatus(view, status) {
  for (const of of [counts.all[view.attribute], view.flags.length && counts.flagged[view.attribute]]) {
    if (!of) continue;
    of[view.status] -= 1;
    of[status] += 1;
  }
  view.status = status;
  showCounts();
}

// What the server made of it: after an undo of an earlier page's decision only the server knows what stands now.
function applyReply(reply) {
  for (const view of [current, ...queue]) {
    if (!view || view.id !== reply.pair_id || view.revision !== reply.revision) continue;
    if (view.status !== reply.status) setStatus(view, reply.status);
    Object.assign(view, { answer: reply.answer, flags: reply.flags });
    if (view === current && !editing()) show(view);
  }
}

function showRefusal(reply, decision) {
  undoable = undoable.filter((entry) => entry.uuid !== decision.uuid);
  counts = reply.counts;
  showCounts();
  const text = decision.text ? ' Your text was: ' + decision.text : '';
  showBanner(reply.message + text, 'refused');
}

// ---- editing

const editing = () => desk.dataset.state === 'editing';

function startEditing() {
  editor.value = current.answer;
  desk.dataset.state = 'editing';
  editor.hidden = false;
  editor.focus();
  editor.setSelectionRange(editor.value.length, editor.value.length);
}

function stopEditing() {
  if (!editing()) return;
  editor.hidden = true;
  desk.dataset.state = 'showing';
}

function save() {
  const text = editor.value.trim();
  if (!text) return say('The answer is empty. Write one, or cancel and reject the pair.');
  const changed = text !== current.answer.trim();
  stopEditing();
  if (changed) decide('edit', { text });
  else decide('accept');
}

// ---- filters, keys, buttons

function choose(changed) {
  Object.assign(filter, changed);
  keepFilter();
  showFilter();
  showCounts();
  say('');
  restart();
}

function showFilter() {
  find('select.attribute').value = filter.attribute;
  find('select.status').value = filter.status;
  find('select.order').value = filter.order;
}

function keepFilter() {
  try {
    sessionStorage.setItem(FILTER_KEY, JSON.stringify(filter));
  } catch (error) {
    console.warn('The browser cannot keep the filters for a reload.', error);
  }
}

function recallFilter() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(FILTER_KEY)) ?? {};
    const offered = (name) => [...find('select.' + name).options].some((option) => option.value === kept[name]);
    for (const name of Object.keys(filter)) if (offered(name)) filter[name] = kept[name];
  } catch (error) {
    console.warn('The filters of the page before cannot be read from the browser.', error);
  }
  showFilter();
}

function act(name) {
  if (name === 'dismiss') return hideBanner();
  say(''); // what was said about the step before
  if (editing()) {
    if (name === 'save') save();
    if (name === 'cancel') stopEditing();
    return;
  }
  if (name === 'undo') undo();
  else if (!current) return; // nothing is shown: the panel says why
  else if (name === 'accept' || name === 'reject') decide(name);
  else if (name === 'edit') startEditing();
  else if (name === 'skip') skip();
}

const TEXT_FIELDS = 'input, textarea, select, [contenteditable]:not([contenteditable="false"]), [role="textbox"]';

function onKey(event) {
  if (!element.isConnected) return document.removeEventListener('keydown', onKey); // Gradio mounted another desk
  if (!desk.checkVisibility() || event.defaultPrevented || event.repeat) return;
  if (event.isComposing || event.keyCode === 229 || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  const target = event.composedPath()[0];
  if (target instanceof Element && target.closest(TEXT_FIELDS)) return;
  const reason = lastRejection && props.reasons[Number(event.key) - 1];
  const name = KEYS[event.key.toLowerCase()];
  if (!reason && !name) return;
  event.preventDefault();
  if (reason) giveReason(reason);
  else act(name);
}

// A half-typed answer is lost with the page: let the browser ask.
function onLeave(event) {
  if (element.isConnected && editing() && editor.value !== current.answer) event.preventDefault();
}

function onEditorKey(event) {
  if (event.isComposing || event.keyCode === 229) return;
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) save();
  else if (event.key === 'Escape') stopEditing();
  else return;
  event.preventDefault();
}

function onClick(event) {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.reason && lastRejection) giveReason(button.dataset.reason);
  else if (button.dataset.do) act(button.dataset.do);
}

async function recallHistory() {
  const reply = await server.history({});
  if (!reply) return setTimeout(recallHistory, 2000);
  const own = new Set(undoable.map((entry) => entry.uuid));
  const earlier = reply.decisions.filter((entry) => !own.has(entry.uuid)).map((entry) => ({ ...entry, view: null }));
  undoable = [...earlier, ...undoable];
  showCounts();
}

fillFilters();
recallFilter();
find('.bar').addEventListener('change', (event) => {
  event.target.blur(); // or the letters would go to the list
  choose(Object.fromEntries(Object.keys(filter).map((name) => [name, find('select.' + name).value])));
});
element.addEventListener('click', onClick);
editor.addEventListener('keydown', onEditorKey);
document.addEventListener('keydown', onKey);
window.addEventListener('beforeunload', onLeave);
// The clock of a decision starts when its pair can be seen.
new IntersectionObserver(([seen]) => {
  shownAt = performance.now();
  if (!seen.isIntersecting) return;
  exhausted = false; // the chat may have sent pairs meanwhile
  refill(true);
}).observe(desk);

outbox.flush().then(recallHistory); // what an earlier page could not send comes first
showPanel();
refill();
