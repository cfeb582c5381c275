// Decisions on their way to the server. Each waits in localStorage until the server has echoed its UUID, so that a
// closed page, a restarted server or a lost connection loses nothing; the server stores a UUID only once.
// Surprising: a server function that raises, or cannot be reached, resolves to `undefined` and never rejects.

// crypto.randomUUID exists on https and localhost only.
function newUuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

class Outbox {
  // send(decision) resolves to {ok: uuid, ...}, {refused: uuid, message} or undefined.
  constructor(prefix, send, on) {
    this.prefix = prefix;
    this.send = send;
    this.on = on; // {saved(reply), refused(reply, decision), changed()}
    this.away = false;
    this.items = this.stored();
    this.serial = 0;
    this.sending = false;
  }

  // One key for each decision: two pages of one browser do not overwrite each other's.
  stored() {
    try {
      return Object.keys(localStorage)
        .filter((key) => key.startsWith(this.prefix))
        .map((key) => JSON.parse(localStorage.getItem(key)))
        .sort((a, b) => a.at - b.at || a.serial - b.serial);
    } catch (error) {
      console.warn('The unsent decisions cannot be read from the browser.', error);
      return [];
    }
  }

  add(decision) {
    const item = { at: Date.now(), serial: this.serial++, decision };
    try {
      localStorage.setItem(this.prefix + decision.uuid, JSON.stringify(item));
    } catch (error) {
      console.warn('The browser cannot keep unsent decisions; they are lost if this page closes.', error);
    }
    this.items.push(item);
    this.flush();
  }

  // In the order in which they were made: an undo must not arrive before what it undoes.
  async flush() {
    this.on.changed();
    if (this.sending) return;
    this.sending = true;
    let pause = 1000;
    while (this.items.length) {
      const { decision } = this.items[0];
      const reply = await this.send(decision);
      if (reply?.ok === decision.uuid || reply?.refused === decision.uuid) {
        this.items.shift();
        localStorage.removeItem(this.prefix + decision.uuid);
        this.away = false;
        pause = 1000;
        if (reply.ok) this.on.saved(reply, decision);
        else this.on.refused(reply, decision);
      } else {
        this.away = true;
        this.on.changed();
        await new Promise((resolve) => setTimeout(resolve, pause));
        pause = Math.min(pause * 2, 8000);
      }
      this.on.changed();
    }
    this.sending = false;
  }
}
