// Which pairs are shown: the bar, the further filters, the chips that take them away again, and the page's address,
// which says all of it, so that a link shows the same pairs. Runs in one scope with desk.js.

const ANYTHING = { race: '', gender: '', age: '', flag: '', reviewer: '', run: '', teacher: '', text: '' };
const NO_FILTER = { attribute: '', status: 'pending', order: props.orders[0], ...ANYTHING };
const NAMES = { attribute: 'Attribute', race: 'Race', gender: 'Gender', age: 'Age', flag: 'Check', reviewer: 'Decided by' };
Object.assign(NAMES, { run: 'Run', teacher: 'Teacher', text: 'Words' });
const COUNT_AGAIN = 60_000; // milliseconds
const TYPED = 350; // after the last letter of a search

const filter = { ...NO_FILTER };
let facets = null; // field → value → how many pairs, each with all other filters
let countedAt = 0;
let counting = 0; // a number; a reply to an older one is dropped
let searching = null;

// What the server knows as a PairFilter.
function asFilter() {
  const { order, ...fields } = filter;
  const set = Object.entries(fields).filter(([, value]) => value !== '');
  return { ...Object.fromEntries(set), status: [filter.status] };
}

function choose(changed) {
  if (wrote() && !window.confirm('What you are writing is not saved. Leave it?')) return showFilter();
  Object.assign(filter, changed);
  keepAddress();
  showFilter();
  say('');
  facets = null;
  count();
  restart();
}

async function count() {
  countedAt = Date.now();
  const number = (counting += 1);
  const reply = await server.facets({ filter: asFilter() });
  if (!reply || reply.error || number !== counting) return;
  facets = reply;
  fillFacets();
  showCounts();
  if (desk.dataset.state === 'empty') showPanel();
}

// ---- the fields

function option(value, name, number) {
  const text = number === undefined ? name : name + ' (' + number.toLocaleString('en') + ')';
  return Object.assign(document.createElement('option'), { value, textContent: text });
}

function fillFilters() {
  const attributes = props.attributes.map(([value, topic]) => option(value, capital(topic)));
  field('attribute').replaceChildren(option('', 'All attributes'), ...attributes);
  field('status').replaceChildren(...props.statuses.map((status) => option(status, capital(status))));
  field('order').replaceChildren(...props.orders.map((order) => option(order, capital(order))));
  for (const name of ['race', 'gender', 'age', 'flag', 'reviewer', 'run']) field(name).replaceChildren(option('', 'All'));
}

const field = (name) => find('[data-filter="' + name + '"]');
const NAMED_FLAGS = { any: 'Any flag', none: 'No flag' };

function fillFacets() {
  for (const name of ['race', 'gender', 'age', 'flag', 'reviewer', 'run']) {
    const values = Object.entries(facets[name] ?? {}).filter(([value]) => value !== '');
    const options = values.map(([value, number]) => option(value, named(name, value), number));
    if (filter[name] && !values.some(([value]) => value === String(filter[name]))) {
      options.push(option(filter[name], named(name, filter[name]), 0));
    }
    const select = field(name);
    if (select === document.activeElement) continue; // an open list must not change under the hand
    select.replaceChildren(option('', 'All'), ...options);
    select.value = filter[name];
    select.disabled = !options.length;
  }
  for (const each of field('status').options) {
    each.textContent = capital(each.value) + ' (' + (facets.status[each.value] ?? 0).toLocaleString('en') + ')';
  }
}

function named(name, value) {
  if (name === 'flag') return NAMED_FLAGS[value] ?? capital(value);
  if (name === 'run') return 'Run ' + value;
  if (name === 'attribute') return capital(props.attributes.find(([known]) => known === value)?.[1] ?? value);
  return String(value);
}

function showFilter() {
  for (const name of Object.keys(filter)) {
    const input = field(name);
    if (!input || (name === 'text' && input === document.activeElement)) continue;
    const has = input.tagName !== 'SELECT' || [...input.options].some((each) => each.value === String(filter[name]));
    if (!has) input.append(option(filter[name], named(name, filter[name])));
    input.value = filter[name];
  }
  const used = Object.keys(NAMES).filter((name) => filter[name] !== '');
  find('.more-count').textContent = used.filter((name) => name !== 'attribute').length || '';
  find('.chips').hidden = !used.length;
  find('.chips').replaceChildren(...used.map(filterChip), ...(used.length > 1 ? [clearAll()] : []));
  find('.tool[data-do="grid"]').setAttribute('aria-pressed', inGrid());
}

function filterChip(name) {
  const item = document.createElement('li');
  const button = Object.assign(document.createElement('button'), { type: 'button' });
  const what = NAMES[name] + ': ' + named(name, filter[name]);
  button.dataset.clear = name;
  button.setAttribute('aria-label', 'Remove the filter ' + what);
  button.append(what, Object.assign(document.createElement('b'), { textContent: '×' }));
  item.append(button);
  return item;
}

function clearAll() {
  const item = document.createElement('li');
  const button = Object.assign(document.createElement('button'), { type: 'button', textContent: 'Clear all' });
  button.className = 'clear-all';
  button.dataset.clear = 'all';
  item.append(button);
  return item;
}

function clearFilter(name) {
  if (name === 'all') choose({ ...ANYTHING, attribute: '' });
  else choose({ [name]: '' });
}

function showMore(open) {
  find('.more-filters').hidden = !open;
  find('.more').setAttribute('aria-expanded', open);
}

function onFilterChange(event) {
  const name = event.target.dataset.filter;
  if (!name || name === 'text') return;
  event.target.blur(); // or the letters would go to the list
  const value = event.target.value;
  choose({ [name]: name === 'run' && value ? Number(value) : value });
}

// The text field: a pause searches, Enter searches and goes back to the pairs, Escape gives it up.
function onSearch(event) {
  if (event.type === 'keydown' && (event.isComposing || !['Enter', 'Escape'].includes(event.key))) return;
  clearTimeout(searching);
  const input = field('text');
  const now = () => input.value.trim() !== filter.text && choose({ text: input.value.trim() });
  if (event.type === 'input') {
    searching = setTimeout(now, TYPED);
    return;
  }
  event.preventDefault();
  if (event.key === 'Escape') input.value = filter.text;
  else now();
  input.blur();
}

// ---- the address: ?review=attribute=pose status=rejected, as commands have it, with order, view and pair

function keepAddress() {
  const words = Object.entries(filter)
    .filter(([name, value]) => value !== NO_FILTER[name])
    .map(([name, value]) => name + '=' + quoted(String(value)));
  if (inGrid()) words.push('view=grid');
  const address = new URL(window.location);
  if (words.length) address.searchParams.set('review', words.join(' '));
  else address.searchParams.delete('review');
  try {
    window.history.replaceState(window.history.state, '', address);
  } catch (error) {
    console.warn('The address cannot say which pairs are shown.', error);
  }
}

const quoted = (value) => (/^[\w.,:+-]+$/.test(value) ? value : '"' + value.replace(/["\\]/g, '\\$&') + '"');

// Sets the filters; returns what else the address says: {grid, pair}.
function readAddress() {
  const text = new URL(window.location).searchParams.get('review') ?? '';
  const found = {};
  for (const [, name, long, short] of text.matchAll(/(\w+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))/g)) {
    found[name] = long === undefined ? short : long.replace(/\\(.)/g, '$1');
  }
  const offered = { attribute: props.attributes.map(([value]) => value), status: props.statuses, order: props.orders };
  const wanted = Object.entries(found).filter(([name, value]) => name in filter && (offered[name]?.includes(value) ?? true));
  const known = new Set([...wanted.map(([name]) => name), 'view', 'pair']);
  const strange = Object.keys(found).filter((name) => !known.has(name));
  if (strange.length) {
    const asked = strange.map((name) => name + '=' + found[name]).join(', ');
    showBanner('This link asks for ' + asked + ', which is not known here; the rest of it is shown.', 'wrong');
  }
  for (const [name, value] of wanted) filter[name] = name === 'run' ? Number(value) || '' : value;
  return { grid: found.view === 'grid', pair: Number(found.pair) || null };
}

// ---- progress

function total() {
  const sum = Object.fromEntries(props.statuses.map((status) => [status, facets?.status?.[status] ?? 0]));
  return { ...sum, all: Object.values(sum).reduce((a, b) => a + b, 0) };
}

function showCounts() {
  const sum = total();
  const done = sum.all - sum.pending - sum.skipped;
  desk.dataset.total = sum.all;
  find('.undo').disabled = !undoable.length;
  find('.done').textContent = facets ? done.toLocaleString('en') + ' of ' + sum.all.toLocaleString('en') + ' reviewed' : '';
  find('.breakdown').textContent = ['accepted', 'edited', 'rejected', 'disputed', 'flagged', 'skipped']
    .filter((status) => sum[status])
    .map((status) => sum[status].toLocaleString('en') + ' ' + status)
    .join(' · ');
  for (const part of element.querySelectorAll('.track i')) {
    part.style.width = sum.all ? (100 * sum[part.className]) / sum.all + '%' : '0';
  }
}

// What a decision does to the counts until the server is asked again. Where several reviewers decide about each pair,
// only the server knows.
function moveCount(from, to) {
  if (!facets?.status || me.overlap > 1) return;
  facets.status[from] = Math.max(0, (facets.status[from] ?? 0) - 1);
  facets.status[to] = (facets.status[to] ?? 0) + 1;
  showCounts();
}
