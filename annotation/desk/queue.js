// Pairs ahead of the reviewer: leased in time, kept while he is there, given back when he is not. Runs in one scope with
// desk.js, which owns the pair on screen.

const AHEAD = 20; // pairs asked for at a time
const LOW = 12; // ask for more when fewer are left
const KEPT_IMAGES = 200;
const IDLE_AFTER = 60_000; // milliseconds without a sign of the reviewer: what he has not seen goes to others
const HEARTBEAT = 120_000; // leases last for ten minutes
const LOOK_AGAIN = 10_000; // how often an empty queue asks whether somebody has given pairs back
const BEAT = 5_000; // how often these times are looked at
const HOLDER_KEY = 'facellm.review.holder';

const holder = takeHolder();
const images = new Map(); // SHA-256 → a decoded <img>
const sources = new Map(); // SHA-256 → its address: the grid shows the same face more than once
const passed = new Set(); // ids of this pass through pairs that are only looked at
let queue = [];
let ends = false;
let fetching = null; // a token; a reply to an older one is dropped
let retry = null; // the timer of the next attempt, while the server is away
let serverAway = false;
let lastInput = Date.now();
let renewed = Date.now();
let looked = Date.now();
let idle = false;

// A window's leases are its own. The name lies in sessionStorage only while no page uses it, since a duplicated browser
// tab begins with a copy of that.
function takeHolder() {
  const giveBack = () => keepInSession(HOLDER_KEY, holder);
  window.addEventListener('pagehide', giveBack);
  window.addEventListener('pagehide', giveBackOnLeaving);
  window.addEventListener('pageshow', (event) => event.persisted && sessionStorage.removeItem(HOLDER_KEY));
  try {
    const kept = sessionStorage.getItem(HOLDER_KEY);
    sessionStorage.removeItem(HOLDER_KEY);
    return kept ?? newUuid();
  } catch (error) {
    return newUuid();
  }
}

function keepInSession(key, value) {
  try {
    sessionStorage.setItem(key, value);
  } catch (error) {
    console.warn('The browser keeps nothing for this page.', error);
  }
}

const leasing = () => filter.status === 'pending' && me.can_decide;
const ahead = () => (inGrid() ? CELLS : AHEAD);
const low = () => (inGrid() ? CELLS : LOW);

async function refill() {
  if (!me || idle || fetching || ends || queue.length >= low()) return;
  const token = (fetching = {});
  const limit = ahead();
  const reply = await server.claim({
    filter: asFilter(),
    order: filter.order,
    holder,
    exclude: [...new Set([...held(), ...waiting(), ...outbox.pairIds, ...passed])],
    limit,
    known: [...images.keys()],
  });
  if (fetching !== token) {
    if (reply?.pairs.length && leasing()) release(reply.pairs.map((view) => view.id)); // leased for a filter of before
    return;
  }
  fetching = null;
  setAway(reply === undefined);
  if (reply === undefined) {
    retry ??= setTimeout(() => ((retry = null), refill()), 2000);
    if (!shown()) showPanel();
    return;
  }
  if (reply.error) showBanner(reply.error, 'wrong');
  keepImages(reply.images);
  queue.push(...reply.pairs);
  if (!leasing()) for (const view of reply.pairs) passed.add(view.id);
  ends = reply.ends;
  looked = Date.now();
  if (!shown()) advance();
  refill();
}

// Pairs gone past without a decision, as after going back.
const waiting = () => trail.filter((view) => !isDone(view)).map((view) => view.id);

// What is on screen and what waits.
const held = () => [...queue, ...cells.map((cell) => cell.view), ...(current ? [current] : [])].map((view) => view.id);

function keepImages(found) {
  for (const [sha256, source] of Object.entries(found)) {
    sources.set(sha256, source);
    images.set(sha256, pictureOf(source));
  }
  const inUse = new Set([...trail.slice(-20), ...queue, ...cells.map((cell) => cell.view)].map((view) => view.image));
  if (current) inUse.add(current.image);
  for (const sha256 of images.keys()) {
    if (images.size <= KEPT_IMAGES) break;
    if (!inUse.has(sha256)) images.delete(sha256), sources.delete(sha256);
  }
}

function pictureOf(source) {
  const image = new Image();
  image.decoding = 'sync';
  image.alt = source ? 'The face that the question is about' : 'The image file is missing';
  image.draggable = false;
  if (source) image.src = source;
  image.decode().catch(() => {}); // a broken file shows its alternative text
  return image;
}

// Begin again: with another filter, or because pairs may have come.
async function restart() {
  const token = (fetching = {}); // no refill until the old leases are back
  queue = [];
  cells = [];
  current = null;
  ends = false;
  passed.clear();
  lastRejection = null;
  stopWriting();
  trail = trail.filter(isDone);
  at = trail.length;
  showPanel();
  if (me.can_decide) await server.release({ holder });
  if (fetching !== token) return;
  fetching = null;
  advance();
}

// A window that closes gives its pairs back. No promise is waited for then, so it is a beacon; where that fails, they are
// free after some minutes.
function giveBackOnLeaving() {
  const config = window.gradio_config;
  const component = config?.components.find((each) => each.props?.elem_id === 'review-desk');
  if (!component || !me?.can_decide) return;
  const call = { session_hash: holder, component_id: component.id, fn_name: 'leave', data: { holder } };
  const address = config.root + (config.api_prefix ?? '') + '/component_server';
  navigator.sendBeacon(address, new Blob([JSON.stringify(call)], { type: 'application/json' }));
}

const release = (ids) => (ids.length ? server.release({ holder, ids }) : undefined);

// ---- whether the reviewer is there

function onInput() {
  lastInput = Date.now();
  if (!idle) return;
  idle = false;
  renew();
  refill();
}

function beat() {
  if (!element.isConnected) return clearInterval(beating);
  const now = Date.now();
  if (!idle && now - lastInput > IDLE_AFTER) rest();
  if (idle || !me) return;
  if (leasing() && now - renewed > HEARTBEAT) renew();
  if (now - countedAt > COUNT_AGAIN && desk.checkVisibility()) count();
  if (!shown() && ends && leasing() && now - looked > LOOK_AGAIN) {
    ends = false;
    refill();
  }
}

function rest() {
  idle = true;
  if (!me || !leasing()) return;
  release(queue.map((view) => view.id));
  queue = [];
  ends = false;
}

async function renew() {
  if (!leasing()) return;
  renewed = Date.now();
  const ids = [...held(), ...waiting()];
  const reply = ids.length ? await server.renew({ holder, ids: [...new Set(ids)] }) : undefined;
  if (reply) dropLost(new Set(ids.filter((id) => !reply.held.includes(id))));
}

// A pair whose lease has run out may be before somebody else by now.
function dropLost(lost) {
  if (!lost.size) return;
  const stays = (view) => !lost.has(view.id) || isDone(view) || outbox.pairIds.includes(view.id);
  queue = queue.filter(stays);
  const mine = current && !stays(current);
  trail = trail.filter((view) => view === current || stays(view));
  at = current ? trail.indexOf(current) : trail.length;
  if (inGrid() && cells.some((cell) => !stays(cell.view))) {
    cells = cells.filter((cell) => stays(cell.view));
    showGrid();
    say('Some faces went to another reviewer, because you were away.');
  }
  if (!mine) return;
  if (writing()) return say('This pair went to another reviewer, because you were away. Save to try all the same.');
  trail.splice(at, 1);
  stopWriting();
  advance();
  say('The pair that was here went to another reviewer, because you were away.');
}
