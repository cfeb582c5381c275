// Decisions on their way to the server. Each waits in localStorage until the server has echoed its UUID, so that a
// closed page, a restarted server or a lost connection loses nothing; the server stores a UUID only once. What the
// server refused stays there too, until the reviewer has closed the message about it.
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
  // send(item) resolves to {ok: uuid, ...}, {refused: uuid, message}, {waits: uuid, message} or undefined. An item is
  // {uuid, decisions}: one decision under its own uuid, or a lot under the lot's.
  constructor(prefix, send, on) {
    this.prefix = prefix + 'unsent.';
    this.refusedPrefix = prefix + 'refused.';
    this.send = send;
    this.on = on; // {saved(reply, item), refused(reply, item), changed()}
    this.away = false;
    this.waits = ''; // why the server takes none of this reviewer's decisions at the moment
    this.items = this.stored(this.prefix).sort((a, b) => a.at - b.at || a.serial - b.serial);
    this.serial = 0;
    this.sending = false;
  }

  // One key for each: two pages of one browser do not overwrite each other's.
  stored(prefix) {
    const read = (key) => {
      try {
        return [JSON.parse(localStorage.getItem(key))];
      } catch (error) {
        console.warn('What was kept in the browser as ' + key + ' cannot be read.', error);
        return []; // the others can
      }
    };
    try {
      return Object.keys(localStorage).filter((key) => key.startsWith(prefix)).flatMap(read);
    } catch (error) {
      console.warn('What was kept in the browser cannot be read.', error);
      return [];
    }
  }

  keep(key, value) {
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch (error) {
      console.warn('The browser cannot keep unsent decisions; they are lost if this page closes.', error);
    }
  }

  get pairIds() {
    return this.items.flatMap((item) => item.decisions.map((decision) => decision.pair_id));
  }

  get count() {
    return this.items.reduce((sum, item) => sum + item.decisions.length, 0);
  }

  add(uuid, decisions) {
    const item = { at: Date.now(), serial: this.serial++, uuid, decisions };
    this.keep(this.prefix + uuid, item);
    this.items.push(item);
    this.flush();
  }

  refusals() {
    return this.stored(this.refusedPrefix).sort((a, b) => a.at - b.at);
  }

  forget(uuid) {
    localStorage.removeItem(this.refusedPrefix + uuid);
  }

  // In the order in which they were made: an undo must not arrive before what it undoes.
  async flush() {
    this.on.changed();
    if (this.sending) return;
    this.sending = true;
    let pause = 1000;
    while (this.items.length) {
      const item = this.items[0];
      const reply = await this.send(item);
      if (reply?.ok === item.uuid || reply?.refused === item.uuid) {
        this.away = false;
        this.waits = '';
        pause = 1000;
        this.take(item, reply);
      } else {
        this.away = !reply?.waits;
        this.waits = reply?.waits ? reply.message : '';
        this.on.changed();
        await new Promise((resolve) => setTimeout(resolve, pause));
        pause = Math.min(pause * 2, 8000);
      }
      this.on.changed();
    }
    this.sending = false;
  }

  // A lot is refused as a whole for the sake of one pair: what it says of the others is sent once more without that.
  take(item, reply) {
    if (reply.ok) {
      this.drop(item);
      this.on.saved(reply, item);
      return;
    }
    const named = item.decisions.filter((decision) => decision.pair_id === reply.pair_id);
    const refused = named.length ? named : item.decisions;
    item.decisions = item.decisions.filter((decision) => !refused.includes(decision));
    for (const decision of refused) {
      const refusal = { at: Date.now(), uuid: decision.uuid, decision, message: reply.message, stale: reply.stale };
      this.keep(this.refusedPrefix + decision.uuid, refusal);
      this.on.refused(refusal);
    }
    if (item.decisions.length) this.keep(this.prefix + item.uuid, item);
    else this.drop(item);
  }

  drop(item) {
    this.items.shift();
    localStorage.removeItem(this.prefix + item.uuid);
  }
}
