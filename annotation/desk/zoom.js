// A closer look at the face: wheel, pinch, + and -, drag, double click. Scale and place stay as they are when the next
// pair comes, so that the same spot of each face can be compared. Runs in one scope with the other scripts.

const CLOSEST = 8;
const STEP = 1.25; // of a key
const zoom = { scale: 1, x: 0, y: 0 }; // the shift in parts of the frame, so that another window size changes nothing
const fingers = new Map(); // pointer id → where it is

function showZoom() {
  const { width, height } = find('.face').getBoundingClientRect();
  const most = (zoom.scale - 1) / 2; // further would show what is beside the picture
  zoom.x = Math.min(Math.max(zoom.x, -most), most);
  zoom.y = Math.min(Math.max(zoom.y, -most), most);
  const is = zoom.scale > 1.001;
  find('.zoomed').style.transform = is
    ? `translate(${zoom.x * width}px, ${zoom.y * height}px) scale(${zoom.scale})`
    : '';
  find('.face').classList.toggle('is-zoomed', is);
  find('.zoom-reset').hidden = !is;
  find('.zoom-reset span').textContent = Math.round(zoom.scale * 100) + ' %';
}

// By a factor, with the spot under (x, y) of the window staying where it is; without a spot, the middle.
function zoomBy(factor, at = null) {
  const frame = find('.face').getBoundingClientRect();
  const scale = Math.min(Math.max(zoom.scale * factor, 1), CLOSEST);
  const spot = at ? [(at.x - frame.left) / frame.width - 0.5, (at.y - frame.top) / frame.height - 0.5] : [0, 0];
  const grown = scale / zoom.scale;
  zoom.x = spot[0] - (spot[0] - zoom.x) * grown;
  zoom.y = spot[1] - (spot[1] - zoom.y) * grown;
  zoom.scale = scale;
  showZoom();
}

function resetZoom() {
  Object.assign(zoom, { scale: 1, x: 0, y: 0 });
  showZoom();
}

function listenForZoom() {
  const face = find('.face');
  face.addEventListener(
    'wheel',
    (event) => {
      event.preventDefault();
      zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), { x: event.clientX, y: event.clientY });
    },
    { passive: false },
  );
  face.addEventListener('dblclick', (event) => {
    if (event.target.closest('button')) return;
    if (zoom.scale > 1.001) resetZoom();
    else zoomBy(2.5, { x: event.clientX, y: event.clientY });
  });
  face.addEventListener('pointerdown', (event) => {
    if (event.target.closest('button')) return;
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (zoom.scale > 1.001 || fingers.size > 1) face.setPointerCapture(event.pointerId);
  });
  face.addEventListener('pointermove', onFinger);
  for (const kind of ['pointerup', 'pointercancel', 'pointerleave']) {
    face.addEventListener(kind, (event) => fingers.delete(event.pointerId));
  }
}

// One finger (or the mouse) drags; two also bring nearer.
function onFinger(event) {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const now = { x: event.clientX, y: event.clientY };
  const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
  fingers.set(event.pointerId, now);
  const frame = find('.face').getBoundingClientRect();
  const share = other ? 0.5 : 1; // of two fingers each moves the picture by half
  zoom.x += (share * (now.x - before.x)) / frame.width;
  zoom.y += (share * (now.y - before.y)) / frame.height;
  if (!other) return showZoom();
  const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 1;
  zoomBy(apart(now) / apart(before), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
}
