// The review desk: turns a key into a decision and shows the next pair at once from what was fetched ahead. Runs once
// for each time Gradio mounts the component, as the last of the desk's scripts, in one scope with them; Gradio provides
// `element`, `props` and `server`.

const STATUS_AFTER = { accept: 'accepted', edit: 'edited', reject: 'rejected', skip: 'skipped', flag: 'flagged' };
const KEYS = { a: 'accept', e: 'edit', r: 'reject', s: 'skip', f: 'flag', z: 'undo', g: 'grid', h: 'history', i: 'guidelines' };
Object.assign(KEYS, { d: 'changes', '?': 'help', '/': 'search', ArrowLeft: 'previous', ArrowRight: 'next' });
Object.assign(KEYS, { '+': 'nearer', '=': 'nearer', '-': 'further', 0: 'zoom-reset' });
const REPEATS = ['previous', 'next', 'nearer', 'further'];
const LOOKING = ['previous', 'next', 'nearer', 'further', 'zoom-reset', 'changes', 'help', 'guidelines', 'search', 'more'];
const LONGEST_TRAIL = 500;
const NAME_KEY = 'facellm.review.name'; // in sessionStorage: whose unsent decisions to show while the server is away

const find = (selector) => element.querySelector(selector);
const desk = find('.desk');
const editor = find('.editor');
let me = null; // {name, can_decide, can_settle, why_not, overlap}
let outbox = null;
let current = null;
let trail = []; // pairs that were shown, oldest first; `at` is the place of the current one
let at = 0;
let shownAt = 0;
let undoable = []; // what can be taken back, oldest first: see entryOf; view is null for decisions of an earlier page
let lastRejection = null; // {view, entry}: the one that a digit gives its reason to
let beating = null;

const isOpen = (view) => view.others === null; // its reviewers do not see each other's decisions
const isDone = (view) => Boolean(view.mine) || !isOpen(view);

// ---- from pair to pair

// To the next that waits; pairs that are only looked at follow each other as they come.
function advance() {
  if (inGrid()) {
    fillGrid();
    return refill();
  }
  const waiting = leasing() ? trail.findIndex((view) => !isDone(view)) : at + 1;
  if (waiting >= 0 && waiting < trail.length) at = waiting;
  else if (queue.length) at = trail.push(queue.shift()) - 1;
  else at = trail.length;
  if (trail.length > LONGEST_TRAIL) at -= trail.splice(0, trail.length - LONGEST_TRAIL).length;
  if (at < trail.length) {
    show(trail[at]);
  } else {
    current = null;
    showPanel();
  }
  refill();
}

function step(by) {
  if (inGrid()) return;
  const last = at >= trail.length - 1;
  if (by > 0 && last && current && leasing() && !isDone(current)) return say('Decide about this pair, or skip it with S.');
  if (by > 0 && last) return advance();
  if (!trail[at + by]) return say('This was the first one.');
  at += by;
  show(trail[at]);
  refresh(trail[at]);
}

// What became of it since it was shown; not while a decision about it is on its way.
async function refresh(view) {
  const reply = await server.recall({ ids: [view.id], known: [...images.keys()] });
  if (!reply?.pairs.length || outbox.pairIds.includes(view.id)) return;
  keepImages(reply.images);
  Object.assign(view, reply.pairs[0]);
  if (view === current && !writing()) show(view);
}

// Show any pair, after the current one in the trail if it was not there before.
async function open(id) {
  let place = trail.findIndex((view) => view.id === id);
  if (place < 0) {
    const reply = await server.recall({ ids: [id], known: [...images.keys()] });
    if (!reply) return setAway(true);
    if (!reply.pairs.length) return say('There is no pair ' + id + '.');
    keepImages(reply.images);
    place = Math.min(at, trail.length);
    trail.splice(place, 0, reply.pairs[0]);
  } else {
    refresh(trail[place]);
  }
  if (inGrid()) leaveGrid();
  at = place;
  show(trail[at]);
  if (trail[at].status === 'pending') renew();
}

function leaveGrid() {
  gridView = false;
  desk.dataset.view = 'pair';
  queue.unshift(...cells.map((cell) => cell.view));
  cells = [];
  keepAddress();
  showFilter();
}

// ---- deciding

// What is remembered of a decision: enough to take it back.
function entryOf(view, uuid, action, lot = null) {
  const { status, answer, flags, mine, others, decided, verdicts } = view;
  const before = { status, answer, flags, mine, others, decided, verdicts };
  return { uuid, pairId: view.id, lot, action, reason: null, at: new Date().toISOString(), view, before };
}

function decide(action, extra = {}) {
  const view = current;
  if (isAlreadySo(view, action, extra)) {
    step(1);
    return say('It is ' + view.status + ' already.');
  }
  const entry = entryOf(view, newUuid(), action);
  entry.reason = extra.reason ?? null;
  const milliseconds = Math.round(performance.now() - shownAt);
  send(view, { uuid: entry.uuid, action, milliseconds, ...extra });
  undoable.push(entry);
  take(view, action, extra);
  lastRejection = action === 'reject' && !extra.reason ? { view, entry } : null;
  advance();
  say(lastRejection ? '' : capital(STATUS_AFTER[action]) + '.');
}

const isAlreadySo = ({ status, mine }, action, { text, reason, note }) =>
  mine?.action === action && status === STATUS_AFTER[action] && !note && (text ?? null) === (mine.text ?? null) && !reason;

// What is shown is what is accepted: of an edited answer, the edited one.
function acceptShown(text = current.answer) {
  if (text === current.draft) decide('accept');
  else decide('edit', { text });
}

// What a decision does to the pair here, until the server tells more.
function take(view, action, { text, reason, note } = {}) {
  const status = STATUS_AFTER[action];
  moveCount(view.status, status);
  Object.assign(view, { status, mine: { action, text: text ?? null, reason: reason ?? null, note: note ?? null } });
  view.decided = 'by ' + me.name + (reason ? ': ' + reason : '');
  if (action === 'edit') Object.assign(view, { answer: text, flags: text === view.answer ? view.flags : [] });
  else if (action !== 'flag') view.answer = view.draft;
}

// Every stored event raises the reviewer's own number by one, so the next can be made before this one is acknowledged.
function written(view, decision) {
  const seen = { revision: view.revision, others: decision.action === 'undo' ? null : view.others };
  view.revision += 1;
  return { ...decision, pair_id: view.id, image_sha256: view.image, ...seen };
}

const send = (view, decision) => outbox.add(decision.uuid, [written(view, decision)]);

function skip() {
  if (isDone(current) || !leasing()) step(1); // a decided pair that is only looked at stays as it is
  else decide('skip');
}

function giveReason(reason) {
  const { view, entry } = lastRejection;
  const uuid = newUuid();
  send(view, { uuid, action: 'reject', reason, undoes: entry.uuid });
  Object.assign(entry, { uuid, reason });
  if (view.mine) view.mine.reason = reason;
  lastRejection = null;
  say('Rejected: ' + reason + '.');
}

async function undo() {
  const last = undoable.at(-1);
  if (!last) return say('There is nothing to undo.');
  const entries = last.lot ? undoable.filter((entry) => entry.lot === last.lot) : [last];
  if (!(await recallFor(entries)) || undoable.at(-1) !== last) return;
  undoable = undoable.filter((entry) => !entries.includes(entry));
  const undos = entries.map(({ view, uuid }) => written(view, { uuid: newUuid(), action: 'undo', undoes: uuid }));
  outbox.add(last.lot ? newUuid() : undos[0].uuid, undos);
  for (const entry of entries) takeBack(entry);
  const views = entries.map((entry) => entry.view);
  queue = queue.filter((waiting) => !views.includes(waiting) && !views.some((view) => view.id === waiting.id));
  lastRejection = null;
  showCounts();
  if (inGrid()) showInGrid(entries);
  else showAgain(views);
  setTimeout(renew, 500); // once the server has taken it back, what is open again is leased to this window
  say('Taken back: ' + (entries.length > 1 ? entries.length + ' decisions.' : 'your decision about this pair.'));
}

// The pairs of these decisions, with their pictures; false while the server is away.
async function recallFor(entries) {
  const missing = entries.filter(({ view }) => !view || !images.has(view.image));
  if (!missing.length) return true;
  const reply = await server.recall({ ids: missing.map((entry) => entry.pairId), known: [...images.keys()] });
  setAway(reply === undefined);
  if (!reply) return false;
  keepImages(reply.images);
  const views = new Map(reply.pairs.map((view) => [view.id, view]));
  for (const entry of missing) entry.view ??= trail.find((view) => view.id === entry.pairId) ?? views.get(entry.pairId);
  return entries.every((entry) => entry.view);
}

function takeBack({ view, before }) {
  moveCount(view.status, before?.status ?? 'pending');
  if (before) Object.assign(view, before);
  else Object.assign(view, { status: 'pending', mine: null, answer: view.draft, others: view.others || null, verdicts: [] });
}

// The first of these pairs is shown; the others come after it.
function showAgain(views) {
  const fresh = views.filter((view) => !trail.includes(view));
  const place = Math.min(at, trail.length);
  trail.splice(place, 0, ...fresh);
  at = trail.indexOf(views[0]);
  show(views[0]);
}

function showInGrid(entries) {
  queue.unshift(...cells.map((cell) => cell.view));
  trail = trail.filter((view) => !entries.some((entry) => entry.view === view));
  at = trail.length;
  openCells(entries.map(({ view, action, reason }) => ({ view, bad: action === 'reject', reason })));
}

// What the server made of it: the flags of a new text, and what stands after an undo.
function onSaved(reply) {
  if (!reply.pair) return;
  for (const view of [...trail, ...queue, ...cells.map((cell) => cell.view)]) {
    if (view.id !== reply.pair_id || view.revision !== reply.pair.revision) continue;
    Object.assign(view, reply.pair);
    if (view === current && !writing()) showPair(view);
  }
}

function onRefused(refusal) {
  undoable = undoable.filter((entry) => entry.uuid !== refusal.uuid);
  if (lastRejection?.entry.uuid === refusal.uuid) lastRejection = null;
  for (const view of trail) if (view.id === refusal.decision.pair_id) refresh(view);
  showRefusals();
  count();
}

// ---- writing: an edit, or the note of a flag

const editing = () => desk.dataset.state === 'editing';
const flagging = () => desk.dataset.state === 'flagging';
const writing = () => editing() || flagging();

function startEditing() {
  editor.value = current.answer;
  desk.dataset.state = 'editing';
  find('.editing-box').hidden = false;
  showLiveDiff();
  editor.focus();
  editor.setSelectionRange(editor.value.length, editor.value.length);
}

function showLiveDiff() {
  const same = editor.value === current.draft;
  find('.live-diff').replaceChildren(...(same ? ['No change yet.'] : diffNodes(current.draft, editor.value)));
  find('.live-diff').classList.toggle('none', same);
}

function startFlagging() {
  desk.dataset.state = 'flagging';
  find('.flag-note').value = '';
  find('.flag-note').focus();
}

function stopWriting() {
  if (!writing()) return;
  document.activeElement.blur(); // a hidden field would still swallow the next key
  find('.editing-box').hidden = true;
  desk.dataset.state = 'showing';
}

function save() {
  const text = editor.value.trim();
  if (!text) return say('The answer is empty. Write one, or cancel and reject the pair.');
  const before = current.answer;
  stopWriting();
  acceptShown(text === before.trim() ? before : text);
}

function sendFlag(event) {
  event.preventDefault();
  const note = find('.flag-note').value.trim();
  if (!note) return say('Write what a curator should look at, or cancel.');
  stopWriting();
  decide('flag', { note });
}

// ---- keys and buttons

const ACTIONS = {
  dismiss,
  save,
  cancel: stopWriting,
  undo,
  accept: () => current && acceptShown(),
  reject: () => current && decide('reject'),
  edit: () => current && startEditing(),
  skip: () => current && skip(),
  flag: () => current && startFlagging(),
  next: () => step(1),
  previous: () => step(-1),
  grid: toggleGrid,
  mark: () => mark(looksAt),
  'accept-rest': acceptRest,
  nearer: () => zoomBy(STEP),
  further: () => zoomBy(1 / STEP),
  'zoom-reset': resetZoom,
  changes: () => ((showsChanges = !showsChanges), current && showChanges(current)),
  more: () => showMore(find('.more-filters').hidden),
  search: () => (showMore(true), field('text').select()),
  help: () => showDialog('help'),
  history: showHistory,
  guidelines: showGuidelines,
  close: closeDialog,
  'edit-guidelines': () => editGuidelines(true),
  'save-guidelines': saveGuidelines,
  'cancel-guidelines': cancelGuidelines,
  'open-stale': openStale,
};
const IN_GRID = ['accept', 'reject', 'edit', 'skip', 'flag', 'next', 'previous', 'nearer', 'further', 'zoom-reset'];
const WHILE_WRITING = ['save', 'cancel', 'dismiss'];

function act(name) {
  if (!me) return;
  if (writing() && !WHILE_WRITING.includes(name)) return;
  if (!me.can_decide && !LOOKING.includes(name) && !['close', 'dismiss', 'history'].includes(name)) return;
  if (inGrid() && IN_GRID.includes(name)) return;
  if (name !== 'dismiss') say(''); // what was said about the step before
  ACTIONS[name]?.();
}

function openStale() {
  const refusal = outbox.refusals().find((each) => each.uuid === desk.dataset.refused);
  if (refusal) open(refusal.decision.pair_id);
}

const TEXT_FIELDS = 'input, textarea, select, [contenteditable]:not([contenteditable="false"]), [role="textbox"]';

function onKey(event) {
  if (!element.isConnected) return document.removeEventListener('keydown', onKey); // Gradio mounted another desk
  if (!desk.checkVisibility() || event.defaultPrevented || openDialog() || !me) return;
  if (event.isComposing || event.keyCode === 229 || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.composedPath()[0];
  if (target instanceof Element && target.closest(TEXT_FIELDS)) return;
  if (target instanceof Element && target.closest('button, summary, a') && ['Enter', ' '].includes(event.key)) return;
  if (onKeyOf(event)) event.preventDefault();
}

// Whether the key was for the desk. Letters and digits with Shift are not, but some keyboards write ? and / with it.
function onKeyOf(event) {
  const { key, shiftKey, repeat } = event;
  const letter = /^[\p{L}\p{N}]$/u.test(key);
  if (inGrid() && me.can_decide && cells.length && (!repeat || key.startsWith('Arrow')) && onGridKey(event)) return true;
  if (shiftKey && (letter || key.startsWith('Arrow'))) return false;
  const name = KEYS[key.length === 1 ? key.toLowerCase() : key];
  if (repeat && !REPEATS.includes(name)) return false;
  if (!writing() && me.can_decide && /^[1-9]$/.test(key)) return onDigit(Number(key));
  if (!name) return false;
  act(name);
  return true;
}

// While a curator has verdicts before him, digits choose one of them; else they say why the last pair was rejected.
function onDigit(digit) {
  if (current && !inGrid() && choices(current)[digit - 1]) chooseVerdict(digit);
  else if (lastRejection && props.reasons[digit - 1] && !(current && choices(current).length)) giveReason(props.reasons[digit - 1]);
  else return false;
  return true;
}

// A half-typed answer is lost with the page: let the browser ask.
const wrote = () => (editing() && editor.value !== current.answer) || (flagging() && find('.flag-note').value);

function onLeave(event) {
  if (element.isConnected && (wrote() || guidelinesUnsaved())) event.preventDefault();
}

function onWriting(event) {
  if (event.isComposing || event.keyCode === 229) return;
  const field = event.target;
  if (event.key === 'Escape' && (field === editor || field.matches('.flag-note'))) stopWriting();
  else if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && field === editor) save();
  else if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && field.matches('.guidelines-text')) saveGuidelines();
  else return;
  event.preventDefault();
}

function onClick(event) {
  const cell = event.target.closest('[data-cell]');
  if (cell) return mark(Number(cell.dataset.cell));
  const button = event.target.closest('button');
  if (!button) return;
  const { reason, choice, clear, open: id } = button.dataset;
  if (reason && lastRejection) giveReason(reason);
  else if (choice) chooseVerdict(Number(choice));
  else if (clear) clearFilter(clear);
  else if (id) closeDialog(), open(Number(id));
  else if (button.dataset.do) act(button.dataset.do);
}

// ---- the start

function fillReasons() {
  const reasons = props.reasons.map((reason, index) => {
    const button = Object.assign(document.createElement('button'), { type: 'button' });
    button.dataset.reason = reason;
    button.append(Object.assign(document.createElement('kbd'), { textContent: index + 1 }), ' ' + capital(reason));
    return button;
  });
  const why = Object.assign(document.createElement('span'), { textContent: 'Rejected. Why?' });
  find('.reasons').replaceChildren(why, ...reasons);
}

function outboxOf(name) {
  const send = ({ uuid, decisions }) =>
    decisions.length === 1 && decisions[0].uuid === uuid
      ? server.decide({ ...decisions[0], as: name })
      : server.decide_lot({ lot: uuid, decisions, as: name });
  return new Outbox('facellm.review.' + name + '.', send, { saved: onSaved, refused: onRefused, changed: showSaving });
}

async function start() {
  const name = sessionStorage.getItem(NAME_KEY);
  if (name !== null) outbox = outboxOf(name); // whose decisions are kept can be said before the server answers
  let reply;
  while ((reply = await server.me({})) === undefined) {
    if (!element.isConnected) return;
    setAway(true);
    showPanel();
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
  me = reply;
  serverAway = false;
  outbox = outboxOf(me.name);
  keepInSession(NAME_KEY, me.name);
  desk.dataset.looking = !me.can_decide;
  find('.looking-on').hidden = me.can_decide;
  find('.looking-on').textContent = 'You are looking on. ' + me.why_not;
  const linked = readAddress();
  gridView = linked.grid && me.can_decide && filter.status === 'pending';
  desk.dataset.view = gridView ? 'grid' : 'pair';
  showFilter();
  showSaving();
  showRefusals();
  // What an earlier page could not send comes first, but not at any price: it may be for another person to sign in.
  await Promise.race([outbox.flush(), new Promise((resolve) => setTimeout(resolve, 3000))]);
  recallHistory();
  count();
  if (linked.pair) await open(linked.pair);
  refill();
}

async function recallHistory() {
  const reply = await server.history({});
  if (!reply) return setTimeout(recallHistory, 2000);
  const own = new Set(undoable.map((entry) => entry.uuid));
  const earlier = reply.decisions.filter((entry) => !own.has(entry.uuid)).map((entry) => ({ ...entry, view: null }));
  undoable = [...earlier, ...undoable];
  showCounts();
}

function listen() {
  find('.bar').addEventListener('change', onFilterChange);
  find('.more-filters').addEventListener('change', onFilterChange);
  field('text').addEventListener('input', onSearch);
  field('text').addEventListener('keydown', onSearch);
  element.addEventListener('click', onClick);
  element.addEventListener('keydown', onWriting);
  editor.addEventListener('input', showLiveDiff);
  find('.flagging').addEventListener('submit', sendFlag);
  find('.guidelines-text').addEventListener('input', previewGuidelines);
  find('dialog.guidelines').addEventListener('cancel', (event) => guidelinesUnsaved() && event.preventDefault());
  find('.events').addEventListener('toggle', showEvents);
  listenForZoom();
  document.addEventListener('keydown', onKey);
  for (const kind of ['keydown', 'pointerdown', 'pointermove', 'wheel']) {
    document.addEventListener(kind, () => desk.checkVisibility() && onInput(), { capture: true, passive: true });
  }
  window.addEventListener('beforeunload', onLeave);
  beating = setInterval(beat, BEAT);
}

// Nothing is leased before the desk is seen; and the clock of a decision starts when its pair can be seen.
let started = false;
new IntersectionObserver(([seen]) => {
  shownAt = performance.now();
  if (!seen.isIntersecting) return;
  if (!started) {
    started = true;
    start();
  } else if (me) {
    onInput();
    count();
    if (!shown()) lookAgain(); // the chat may have sent pairs meanwhile
  }
}).observe(desk);

fillFilters();
fillReasons();
fillHelp();
listen();
showPanel();
