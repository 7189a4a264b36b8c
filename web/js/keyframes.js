/**
 * The text of FLAME Edit's `keyframes` and `more` (flow3d/fit/keyframes.py): read, sampled, and changed key by key.
 * @typedef {{name: string, keys: [number, number][], easing: string}} Curve keys: frame and value, rising
 * @typedef {{curves: Curve[], constants: [string, number][], fault: string}} Settings `fault`: what cannot be read or shown
 */

const EASINGS = ["linear", "smooth"]
const NUMBER = "[-+]?(?:\\d+\\.?\\d*|\\.\\d+)(?:[eE][-+]?\\d+)?"

/** @param {string} text @returns {Settings} */
export function parsed(text) {
  const settings = { curves: [], constants: [], fault: "" }
  for (const line of text.split("\n"))
    for (const piece of pieces(line.split("#")[0])) {
      const one = setting(piece)
      if (!one) settings.fault = /=\s*curve|:\s*curve/.test(piece) ? `${piece}: not shown here` : `cannot read '${piece}'`
      else if ("keys" in one) settings.curves.push(one)
      else settings.constants.push([one.name, one.value])
    }
  return settings
}

/** A line cut where a name begins; an easing's word belongs to what stands before it. */
function pieces(line) {
  const out = []
  for (const part of line.split(/[,;]/).map((p) => p.trim()).filter(Boolean)) {
    if (out.length && (/^[-+.\d(]/.test(part) || EASINGS.includes(part))) out[out.length - 1] += `, ${part}`
    else out.push(part)
  }
  return out
}

/** @returns {Curve | {name: string, value: number} | null} */
function setting(piece) {
  const named = /^\s*([A-Za-z_]\w*)\s*[=:](.*)$/s.exec(piece)
  if (!named) return null
  const [, name, rest] = named, body = rest.trim()
  if (new RegExp(`^${NUMBER}$`).test(body)) return { name, value: Number(body) }
  const word = /(?<=[\d.])[\s,]*([A-Za-z]+)$/.exec(body)
  if (word && !EASINGS.includes(word[1])) return null
  const keys = []
  for (const key of (word ? body.slice(0, word.index) : body).split(",")) {
    const match = new RegExp(`^\\s*(\\d+)\\s*:\\s*(${NUMBER})\\s*$`).exec(key)
    if (!match || keys.some(([f]) => f === Number(match[1]))) return null
    keys.push([Number(match[1]), Number(match[2])])
  }
  keys.sort((a, b) => a[0] - b[0])
  return { name, keys, easing: word?.[1] ?? "linear" }
}

/** A curve's value; before the first and after the last key it is held. @param {Curve} curve @param {number} frame */
export function sampled({ keys, easing }, frame) {
  const i = keys.findIndex(([f]) => f >= frame)
  if (i === -1) return keys[keys.length - 1][1]
  if (i === 0 || keys[i][0] === frame) return keys[i][1]
  const [[f0, v0], [f1, v1]] = [keys[i - 1], keys[i]]
  const h = f1 - f0, t = (frame - f0) / h
  if (easing === "linear") return v0 + (v1 - v0) * t
  const [d0, d1] = [slope(keys, i - 1) * h, slope(keys, i) * h]
  const s = t * t * (3 - 2 * t)
  return v0 + (v1 - v0) * s + d0 * t * (1 - t) * (1 - t) - d1 * t * t * (1 - t)
}

/** Fritsch and Carlson's slope at a key: a weighted harmonic mean, level at peaks and at both ends. */
function slope(keys, i) {
  if (i === 0 || i === keys.length - 1) return 0
  const [h0, h1] = [keys[i][0] - keys[i - 1][0], keys[i + 1][0] - keys[i][0]]
  const [m0, m1] = [(keys[i][1] - keys[i - 1][1]) / h0, (keys[i + 1][1] - keys[i][1]) / h1]
  if (m0 * m1 <= 0) return 0
  const [w0, w1] = [2 * h1 + h0, h1 + 2 * h0]
  return (w0 + w1) / (w0 / m0 + w1 / m1)
}

/** Frames up to the last key. @param {Settings} settings */
export const length = ({ curves }) => Math.max(1, ...curves.map((c) => c.keys[c.keys.length - 1][0] + 1))

/** @param {Curve} curve */
export function written({ name, keys, easing }) {
  const shown = keys.map(([f, v]) => `${f}: ${Number(v.toFixed(4))}`).join(", ")
  return `${name}: ${shown}${easing === "linear" ? "" : ` ${easing}`}`
}

/**
 * The text with one slider's curve changed; `change` gets its keys ([] where it had none) and gives the new ones, [] to
 * take the curve away. Everything else stays as it was written.
 * @param {string} text @param {string} name @param {(keys: [number, number][]) => [number, number][]} change
 */
export function withKeys(text, name, change) {
  let found = false
  const lines = text.split("\n").map((line) => {
    const [said, ...note] = line.split("#")
    const parts = pieces(said), mine = (s) => s && "keys" in s && s.name === name
    const at = parts.findIndex((piece) => mine(setting(piece)))
    if (at < 0) return line
    found = true
    const curve = /** @type {Curve} */ (setting(parts[at]))
    const keys = change(curve.keys)
    parts.splice(at, 1, ...(keys.length ? [written({ ...curve, keys })] : []))
    return parts.join(", ") + (note.length ? ` #${note.join("#")}` : "") || null
  }).filter((line) => line !== null)
  if (!found) {
    const keys = change([])
    while (lines.length && !lines[lines.length - 1].trim()) lines.pop()
    if (keys.length) lines.push(written({ name, keys, easing: "smooth" }))
  }
  return lines.join("\n")
}

/**
 * Keys with one set.
 * @param {[number, number][]} keys @param {number} frame @param {number} value @returns {[number, number][]}
 */
export const withKey = (keys, frame, value) =>
  [...keys.filter(([f]) => f !== frame), /** @type {[number, number]} */ ([frame, value])].sort((a, b) => a[0] - b[0])
