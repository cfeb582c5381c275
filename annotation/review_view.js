// What the review desk shows: the pair, the panel in its place when there is none, progress, messages.
// Runs in one scope with review_desk.js, which owns the state; everything from the server is set as text, not markup.

const SAID_FOR = 5000; // milliseconds
let saying = null; // the timer that clears what was said

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function show(view) {
  current = view;
  stopEditing();
  find('.face').replaceChildren(images.get(view.image) ?? 'The image is missing');
  find('.topic').textContent = view.topic;
  find('.question').textContent = view.question;
  find('.answer').replaceChildren(...markedAnswer(view));
  find('.flags').replaceChildren(...view.flags.map(flagItem));
  find('.reading').scrollTop = 0;
  const badge = find('.badge');
  badge.className = 'badge ' + view.status;
  badge.textContent = view.status === 'pending' ? '' : [view.status, view.decided].filter(Boolean).join(' ');
  find('.labels').replaceChildren(...Object.entries(view.labels).map(chip));
  find('.skip-name').textContent = view.status === 'pending' ? 'Skip' : 'Next';
  desk.dataset.state = 'showing';
  desk.dataset.pair = view.id;
  showReasons();
  shownAt = performance.now();
}

// The answer with its flagged spans marked; where spans overlap, the most severe flag gives the colour. Spans count code
// points, as Python does, and a JavaScript string counts an emoji as two.
function markedAnswer({ answer, flags }) {
  const points = Array.from(answer);
  const spans = flags.filter((flag) => flag.span_start !== null && flag.span_end <= points.length);
  const cuts = new Set([0, points.length, ...spans.flatMap((flag) => [flag.span_start, flag.span_end])]);
  const bounds = [...cuts].sort((a, b) => a - b);
  return bounds.slice(1).map((end, index) => {
    const start = bounds[index];
    const text = points.slice(start, end).join('');
    const over = spans.filter((flag) => flag.span_start <= start && flag.span_end >= end);
    if (!over.length) return text;
    const mark = Object.assign(document.createElement('mark'), { className: over[0].severity, textContent: text });
    mark.title = over.map((flag) => capital(flag.check) + ': ' + flag.message).join('\n');
    return mark;
  });
}

function flagItem({ check, severity, message }) {
  const item = Object.assign(document.createElement('li'), { className: severity });
  const name = Object.assign(document.createElement('strong'), { textContent: capital(check) });
  const level = Object.assign(document.createElement('span'), { className: 'level', textContent: severity });
  item.append(level, name, ' ' + message);
  return item;
}

function chip([name, value]) {
  const item = document.createElement('li');
  const label = document.createElement('span');
  label.textContent = name.replaceAll('_', ' ');
  item.append(label, ' ' + value.replaceAll('_', ' '));
  return item;
}

function showPanel() {
  desk.dataset.pair = '';
  desk.dataset.state = exhausted ? 'empty' : 'loading';
  showReasons();
  const [title, text, ...buttons] = panelContent();
  find('.panel-mark').textContent = exhausted && filter.status === 'pending' && desk.dataset.total > 0 ? '✓' : '';
  find('.panel-title').textContent = title;
  find('.panel-text').textContent = text;
  find('.panel-buttons').replaceChildren(
    ...buttons.map(([name, action]) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = name;
      button.addEventListener('click', action);
      return button;
    }),
  );
}

function panelContent() {
  if (!exhausted) {
    return serverAway
      ? ['Waiting for the server', 'The next pairs come as soon as it answers again.']
      : ['Loading the next pairs', 'One moment.'];
  }
  const totals = total(filter.attribute);
  const all = () => choose({ attribute: '' });
  if (!Object.values(total('', counts.all)).some(Boolean)) {
    return [
      'No pairs yet',
      'Run “python -m annotation seed” for a set of rendered faces, then look again.',
      ['Look again', restart],
    ];
  }
  const again = ['Look again', restart];
  if (onlyFlagged() && !Object.values(total('')).some(Boolean)) {
    return [
      'No flagged pairs',
      'Nothing was found, or nothing was checked yet: run “python -m annotation check”, then look again.',
      ['Show all pairs', () => choose({ order: props.orders[0] })],
      again,
    ];
  }
  const widen = filter.attribute ? [['Show all attributes', all]] : [];
  if (filter.status === 'pending') {
    const skipped = totals.skipped ? [['Look at the skipped ones', () => choose({ status: 'skipped' })]] : [];
    const text = totals.skipped ? totals.skipped + ' of them were skipped.' : 'Take a snapshot, or fine-tune on them.';
    return ['All pairs of this filter are reviewed', text, ...skipped, ...widen, again];
  }
  if (totals[filter.status]) {
    return ['You have seen them all', 'No further ' + filter.status + ' pair is left in this pass.', again, ...widen];
  }
  const pending = ['Go to the pending ones', () => choose({ status: 'pending' })];
  return ['No ' + filter.status + ' pairs here', 'Choose another filter.', pending, ...widen];
}

const onlyFlagged = () => filter.order === props.orders.at(-1);

// How many pairs of an attribute (or all) there are by status; only flagged ones while only those are shown.
function total(attribute, of = onlyFlagged() ? counts.flagged : counts.all) {
  const sum = Object.fromEntries(props.statuses.map((status) => [status, 0]));
  for (const [name, numbers] of Object.entries(of)) {
    if (attribute && name !== attribute) continue;
    for (const status of props.statuses) sum[status] += numbers[status];
  }
  return sum;
}

function showCounts() {
  const sum = total(filter.attribute);
  const all = Object.values(sum).reduce((a, b) => a + b, 0);
  const done = all - sum.pending - sum.skipped;
  desk.dataset.total = all;
  find('.undo').disabled = !undoable.length;
  find('.done').textContent = done.toLocaleString('en') + ' of ' + all.toLocaleString('en') + ' reviewed';
  find('.breakdown').textContent = ['accepted', 'edited', 'rejected', 'skipped']
    .filter((status) => sum[status])
    .map((status) => sum[status].toLocaleString('en') + ' ' + status)
    .join(' · ');
  for (const part of element.querySelectorAll('.track i')) {
    part.style.width = all ? (100 * sum[part.className]) / all + '%' : '0';
  }
  for (const option of find('select.status').options) {
    option.textContent = option.dataset.name + ' (' + sum[option.value].toLocaleString('en') + ')';
  }
}

function showReasons() {
  find('.reasons').hidden = !lastRejection;
  find('.message').hidden = Boolean(lastRejection);
}

// A sentence about the step that was just taken; it goes with the next one, or after a while.
function say(text) {
  find('.message').textContent = text;
  showReasons();
  clearTimeout(saying);
  if (text) saying = setTimeout(say, SAID_FOR, '');
}

function setAway(away) {
  serverAway = away;
  showSaving();
}

function showSaving() {
  const unsent = outbox.items.length;
  desk.dataset.unsent = unsent;
  const away = serverAway || outbox.away;
  find('.saved').textContent = unsent ? (away ? unsent + ' not sent yet' : 'Saving…') : 'All saved';
  const kept = unsent === 1 ? 'One decision is' : unsent + ' decisions are';
  if (away) {
    const safe = unsent ? ' ' + kept + ' kept in this browser and will be sent as soon as it is back.' : '';
    showBanner('The server does not answer.' + safe, 'away');
  } else if (desk.dataset.banner === 'away') {
    hideBanner();
  }
}

function showBanner(text, kind) {
  desk.dataset.banner = kind;
  find('.banner-text').textContent = text;
  find('.banner').hidden = false;
}

function hideBanner() {
  desk.dataset.banner = '';
  find('.banner').hidden = true;
}

function fillFilters() {
  const option = (value, name) => Object.assign(document.createElement('option'), { value, textContent: name });
  const attributes = props.attributes.map(([value, topic]) => option(value, capital(topic)));
  find('select.attribute').replaceChildren(option('', 'All attributes'), ...attributes);
  find('select.status').replaceChildren(...props.statuses.map((status) => option(status, capital(status))));
  find('select.order').replaceChildren(...props.orders.map((order) => option(order, capital(order))));
  for (const item of find('select.status').options) item.dataset.name = item.textContent;
  const reasons = props.reasons.map((reason, index) => {
    const button = Object.assign(document.createElement('button'), { type: 'button' });
    const key = Object.assign(document.createElement('kbd'), { textContent: index + 1 });
    button.dataset.reason = reason;
    button.append(key, ' ' + capital(reason));
    return button;
  });
  const why = Object.assign(document.createElement('span'), { textContent: 'Rejected. Why?' });
  find('.reasons').replaceChildren(why, ...reasons);
}
