// What the desk shows: the pair, the panel in its place when there is none, messages. Runs in one scope with desk.js,
// which owns the state; everything from the server is set as text, not markup.

const SAID_FOR = 5000; // milliseconds
let saying = null; // the timer that clears what was said
let showsChanges = true; // whether an edited pair is shown with what was changed

const capital = (text) => text[0].toUpperCase() + text.slice(1);
const shown = () => (inGrid() ? cells.length > 0 : current !== null);

function show(view) {
  current = view;
  stopWriting();
  desk.dataset.state = 'showing';
  desk.dataset.pair = view.id;
  find('.zoomed').replaceChildren(images.get(view.image) ?? 'The image is missing');
  find('.reading').scrollTop = 0;
  showPair(view);
  showReasons();
  shownAt = performance.now();
}

// What may change while it is on screen.
function showPair(view) {
  find('.topic').textContent = view.topic;
  find('.question').textContent = view.question;
  find('.answer').replaceChildren(...markedAnswer(view));
  find('.flags').replaceChildren(...view.flags.map(flagItem));
  const badge = find('.badge');
  badge.className = 'badge ' + view.status;
  badge.textContent = badgeText(view);
  find('.labels').replaceChildren(...Object.entries(view.labels).map(labelChip));
  const skips = isOpen(view) && me.can_decide && !view.mine;
  find('.skip-name').textContent = skips ? 'Skip' : 'Next';
  find('[data-do="previous"]').disabled = at < 1;
  find('[data-do="next"]').disabled = skips && at >= trail.length - 1;
  showChanges(view);
  showVerdicts(view);
}

function badgeText(view) {
  if (isOpen(view) && !view.mine) return '';
  const reason = view.mine?.reason ? ': ' + view.mine.reason : '';
  if (!view.others && view.mine) return view.status + ' by you' + reason;
  return [view.status, view.decided].filter(Boolean).join(' ');
}

function showChanges(view) {
  const edited = view.answer !== view.draft && view.status !== 'disputed';
  find('.changes').hidden = !edited || !showsChanges;
  if (edited) find('.changes-text').replaceChildren(...diffNodes(view.draft, view.answer));
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

function labelChip([name, value]) {
  const item = document.createElement('li');
  const label = document.createElement('span');
  label.textContent = name.replaceAll('_', ' ');
  item.append(label, ' ' + value.replaceAll('_', ' '));
  return item;
}

// ---- in place of the pair

function showPanel() {
  desk.dataset.pair = '';
  desk.dataset.state = ends && !fetching ? 'empty' : 'loading';
  showReasons();
  const empty = desk.dataset.state === 'empty';
  const [title, text, ...buttons] = empty ? emptyPanel() : waitingPanel();
  find('.panel-mark').textContent = empty && filter.status === 'pending' && desk.dataset.total > 0 ? '✓' : '';
  find('.panel-title').textContent = title;
  find('.panel-text').textContent = text;
  find('.panel-buttons').replaceChildren(
    ...buttons.map(([name, action]) => {
      const button = Object.assign(document.createElement('button'), { type: 'button', textContent: name });
      button.addEventListener('click', action);
      return button;
    }),
  );
}

const waitingPanel = () =>
  serverAway
    ? ['Waiting for the server', 'The next pairs come as soon as it answers again.']
    : ['Loading the next pairs', 'One moment.'];

function emptyPanel() {
  const again = ['Look again', lookAgain];
  const narrow = Object.keys(NAMES).some((name) => filter[name] !== '');
  const sum = total();
  if (!narrow && facets && !sum.all) {
    return ['No pairs yet', 'Run “python -m annotation seed” for a set of rendered faces, then look again.', again];
  }
  if (filter.flag === 'any' && facets && !sum.all) {
    const text = 'Nothing was found, or nothing was checked yet: run “python -m annotation check”, then look again.';
    return ['No flagged pairs', text, ['Show all pairs', () => choose({ flag: '' })], again];
  }
  const widen = narrow ? [['Clear the filters', () => clearFilter('all')]] : [];
  if (filter.status === 'pending') return pendingPanel(sum, widen, again);
  if (sum[filter.status]) {
    return ['You have seen them all', 'No further ' + filter.status + ' pair is left in this pass.', again, ...widen];
  }
  const pending = ['Go to the pending ones', () => choose({ status: 'pending' })];
  return ['No ' + filter.status + ' pairs here', 'Choose another filter.', pending, ...widen];
}

function pendingPanel(sum, widen, again) {
  if (facets && !sum.all) return ['No pair matches', 'Choose other filters, or search for other words.', ...widen, again];
  if (sum.pending) {
    const text = 'Others have the rest before them, or you have decided about it. What they give back comes here.';
    return ['Nothing to do for you here', text, again, ...widen];
  }
  const skipped = sum.skipped ? [['Look at the skipped ones', () => choose({ status: 'skipped' })]] : [];
  const text = sum.skipped ? sum.skipped + ' of them were skipped.' : 'Take a snapshot, or fine-tune on them.';
  return ['All pairs of this filter are reviewed', text, ...skipped, ...widen, again];
}

function lookAgain() {
  count();
  restart();
}

// ---- messages

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
  if (!outbox) return;
  const unsent = outbox.count;
  desk.dataset.unsent = unsent;
  const away = serverAway || outbox.away;
  find('.saved').textContent = unsent ? (away || outbox.waits ? unsent + ' not sent yet' : 'Saving…') : 'All saved';
  const kept = unsent === 1 ? 'One decision is' : unsent + ' decisions are';
  if (away || outbox.waits) {
    const why = away ? 'The server does not answer.' : outbox.waits;
    const then = away ? ' and will be sent as soon as it is back.' : ' until then.';
    showBanner(why + (unsent ? ' ' + kept + ' kept in this browser' + then : ''), 'away');
  } else if (desk.dataset.banner === 'away') {
    hideBanner();
    showRefusals();
  }
}

function showBanner(text, kind) {
  desk.dataset.banner = kind;
  find('.banner-text').textContent = text;
  find('.banner-diff').hidden = true;
  find('.banner-open').hidden = true;
  find('.banner').hidden = false;
}

function hideBanner() {
  desk.dataset.banner = '';
  find('.banner').hidden = true;
}

// What could not be stored, oldest first: why, what stands instead, and what the reviewer had written.
function showRefusals() {
  const [refusal, ...more] = outbox.refusals();
  if (!refusal) return desk.dataset.banner === 'refused' && hideBanner();
  const { decision, message, stale } = refusal;
  const others = more.length ? ' (' + more.length + ' more after this.)' : '';
  showBanner(message + others, 'refused');
  desk.dataset.refused = refusal.uuid;
  find('.banner-open').hidden = !stale;
  if (!stale && !decision.text) return;
  const diff = find('.banner-diff');
  diff.hidden = false;
  if (decision.text) {
    const what = stale ? 'Yours, against what stands: ' : 'Your text was: ';
    diff.replaceChildren(what, ...(stale ? diffNodes(stale.text, decision.text) : [decision.text]));
  } else {
    const reason = decision.reason ? ' (' + decision.reason + ')' : '';
    diff.replaceChildren('Yours: ' + decision.action + reason + '. It is: ' + stale.status + ' ' + stale.by + '. ');
    diff.append(...(stale.text === stale.answer ? [stale.text] : diffNodes(stale.answer, stale.text)));
  }
}

function dismiss() {
  if (desk.dataset.banner !== 'refused') return hideBanner();
  outbox.forget(desk.dataset.refused);
  hideBanner();
  showRefusals();
}
