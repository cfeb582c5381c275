// Many faces at once: one attribute, up to 24 faces; the bad ones are marked, the rest is accepted, as one lot with one
// undo. Runs in one scope with desk.js.

const CELLS = 24;
let cells = []; // {view, bad, reason}
let looksAt = 0; // the cell that keys are about
let gridView = false;

const inGrid = () => gridView;

function toggleGrid() {
  if (!gridView && filter.status !== 'pending') return say('Many faces at once are for pending pairs.');
  gridView = !gridView;
  desk.dataset.view = gridView ? 'grid' : 'pair';
  // One attribute: 24 answers to one question can be compared at a glance.
  if (gridView && !filter.attribute) filter.attribute = current?.attribute ?? props.attributes[0][0];
  choose({});
}

function fillGrid() {
  cells = [];
  if (queue.length < CELLS && !ends) return showPanel();
  const views = queue.splice(0, CELLS);
  if (!views.length) return showPanel();
  openCells(views.map((view) => ({ view, bad: false, reason: null })));
}

function openCells(fresh) {
  cells = fresh;
  looksAt = 0;
  current = null;
  desk.dataset.state = 'showing';
  desk.dataset.pair = '';
  shownAt = performance.now();
  showGrid();
  find('.grid').scrollTop = 0;
  focusCell();
}

function showGrid() {
  if (!cells.length) return advance();
  looksAt = Math.min(looksAt, cells.length - 1);
  find('.grid').replaceChildren(...cells.map(cellNode));
  showMarks();
}

function cellNode({ view }, index) {
  const cell = Object.assign(document.createElement('div'), { className: 'cell' });
  cell.dataset.cell = index;
  cell.dataset.pair = view.id;
  cell.setAttribute('role', 'option');
  const picture = Object.assign(new Image(), { alt: '', draggable: false, decoding: 'sync' });
  if (sources.get(view.image)) picture.src = sources.get(view.image);
  const text = Object.assign(document.createElement('span'), { className: 'cell-text' });
  text.append(...markedAnswer(view));
  const mark = Object.assign(document.createElement('span'), { className: 'cell-mark' });
  cell.append(picture, text, mark);
  return cell;
}

function showMarks() {
  for (const [index, cell] of cells.entries()) {
    const node = find('.grid').children[index];
    node.classList.toggle('bad', cell.bad);
    node.setAttribute('aria-selected', cell.bad);
    node.tabIndex = index === looksAt ? 0 : -1;
    node.querySelector('.cell-mark').textContent = cell.bad ? 'Bad' + (cell.reason ? ': ' + cell.reason : '') : '';
  }
  const bad = cells.filter((cell) => cell.bad).length;
  const rest = cells.length - bad;
  find('.rest-name').textContent = bad ? 'Reject ' + bad + ', accept ' + rest : 'Accept all ' + cells.length;
  find('[data-do="mark"]').firstChild.textContent = cells[looksAt]?.bad ? 'Not bad ' : 'Mark as bad ';
}

function focusCell() {
  find('.grid').children[looksAt]?.focus({ preventScroll: false });
}

function mark(index, reason = null) {
  const cell = cells[index];
  if (!cell) return;
  looksAt = index;
  cell.bad = reason ? true : !cell.bad;
  cell.reason = cell.bad ? reason : null;
  showMarks();
  focusCell();
  if (cell.bad && !reason) say('Marked. A digit says why: ' + props.reasons.map((name, i) => i + 1 + ' ' + name).join(', ') + '.');
  else say('');
}

function acceptRest() {
  if (!cells.length) return;
  const lot = newUuid();
  const milliseconds = Math.round((performance.now() - shownAt) / cells.length);
  const decisions = cells.map(({ view, bad, reason }) => {
    const entry = entryOf(view, newUuid(), bad ? 'reject' : 'accept', lot);
    entry.reason = reason;
    undoable.push(entry);
    return written(view, { uuid: entry.uuid, action: entry.action, milliseconds, lot, ...(reason ? { reason } : {}) });
  });
  const bad = cells.filter((cell) => cell.bad).length;
  for (const { view, bad: is, reason } of cells) take(view, is ? 'reject' : 'accept', { reason });
  outbox.add(lot, decisions);
  const count = cells.length;
  trail.push(...cells.map((cell) => cell.view));
  at = trail.length;
  cells = [];
  advance();
  say(count - bad + ' accepted, ' + bad + ' rejected. Z takes all of it back.');
}

// In rows as they are on screen.
function moveInGrid(key) {
  const nodes = [...find('.grid').children];
  const perRow = nodes.filter((node) => node.offsetTop === nodes[0].offsetTop).length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -perRow, ArrowDown: perRow }[key];
  const to = looksAt + step;
  if (!nodes[to]) return;
  looksAt = to;
  showMarks();
  focusCell();
}

// Whether the key was for the grid.
function onGridKey(event) {
  const { key, shiftKey } = event;
  if (key.startsWith('Arrow')) moveInGrid(key);
  else if (shiftKey ? key === 'A' : key === 'Enter') acceptRest();
  else if (!shiftKey && (key === 'x' || key === ' ')) mark(looksAt);
  else if (!shiftKey && props.reasons[Number(key) - 1]) mark(looksAt, props.reasons[Number(key) - 1]);
  else return false;
  return true;
}
