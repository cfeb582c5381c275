// Which words of a text were put in and which were taken out. Runs in one scope with the other scripts of the desk.
// Surprising: words are compared, but what stands between them (spaces, punctuation, line breaks) goes with the word
// before it, so that the pieces put together again are the texts themselves.

const LONGEST_DIFF = 2000; // words; beyond, the whole text counts as changed

// [{kind: 'same' | 'out' | 'in', text}], with runs of one kind joined.
function wordDiff(before, after) {
  const [old, young] = [pieces(before), pieces(after)];
  let start = 0;
  while (start < old.length && start < young.length && old[start] === young[start]) start += 1;
  let end = 0;
  while (end < old.length - start && end < young.length - start && old.at(-1 - end) === young.at(-1 - end)) end += 1;
  return joined([
    ...old.slice(0, start).map((text) => ({ kind: 'same', text })),
    ...withoutCrumbs(changed(old.slice(start, old.length - end), young.slice(start, young.length - end))),
    ...old.slice(old.length - end).map((text) => ({ kind: 'same', text })),
  ]);
}

const pieces = (text) => text.match(/[\p{L}\p{N}'’-]+|\s+|[^\p{L}\p{N}'’\s-]/gu) ?? [];

// By the longest common subsequence; what is between the common beginning and end is short.
function changed(old, young) {
  const whole = (words, kind) => words.map((text) => ({ kind, text }));
  if (!old.length || !young.length || old.length + young.length > LONGEST_DIFF) {
    return [...whole(old, 'out'), ...whole(young, 'in')];
  }
  const width = young.length + 1;
  const common = new Uint16Array((old.length + 1) * width);
  for (let i = old.length - 1; i >= 0; i -= 1) {
    for (let j = young.length - 1; j >= 0; j -= 1) {
      const here = i * width + j;
      common[here] = old[i] === young[j] ? common[here + width + 1] + 1 : Math.max(common[here + width], common[here + 1]);
    }
  }
  const found = [];
  let [i, j] = [0, 0];
  while (i < old.length && j < young.length) {
    if (old[i] === young[j]) found.push({ kind: 'same', text: old[(i += 1) - 1] }), (j += 1);
    else if (common[(i + 1) * width + j] >= common[i * width + j + 1]) found.push({ kind: 'out', text: old[i++] });
    else found.push({ kind: 'in', text: young[j++] });
  }
  return [...found, ...whole(old.slice(i), 'out'), ...whole(young.slice(j), 'in')];
}

// Where only a short word or two is common to both texts between two changes ("is", "of the"), all of it is one change:
// a sentence that was written anew is read more easily whole than in crumbs.
function withoutCrumbs(parts) {
  const kept = [];
  for (let start = 0; start < parts.length; ) {
    let end = start;
    while (end < parts.length && parts[end].kind === parts[start].kind) end += 1;
    const run = parts.slice(start, end);
    const between = start > 0 && end < parts.length;
    const crumb = run[0].kind === 'same' && between && !run.some(({ text }) => /[\p{L}\p{N}]{4}/u.test(text));
    kept.push(...(crumb ? run.map(({ text }) => ({ kind: 'both', text })) : run));
    start = end;
  }
  return kept;
}

// Runs of one kind become one piece; what is in both texts and yet counts as changed goes out and comes in again.
function joined(parts) {
  const runs = [];
  let [out, put] = ['', ''];
  const flush = () => {
    if (out) runs.push({ kind: 'out', text: out });
    if (put) runs.push({ kind: 'in', text: put });
    [out, put] = ['', ''];
  };
  for (const { kind, text } of parts) {
    if (kind !== 'same') {
      if (kind !== 'in') out += text;
      if (kind !== 'out') put += text;
      continue;
    }
    flush();
    if (runs.at(-1)?.kind === 'same') runs.at(-1).text += text;
    else runs.push({ kind: 'same', text });
  }
  flush();
  return runs;
}

// The same as nodes: <del> and <ins>, with the rest as text.
function diffNodes(before, after) {
  return wordDiff(before, after).map(({ kind, text }) => {
    if (kind === 'same') return text;
    return Object.assign(document.createElement(kind === 'out' ? 'del' : 'ins'), { textContent: text });
  });
}
