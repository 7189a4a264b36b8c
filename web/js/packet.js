/**
 * Packets of the pack's routes: safetensors in memory, numbers by name and one JSON text (see flow3d/live.py).
 * @typedef {{told: any, arrays: Record<string, Float32Array | Int32Array | Uint8Array>, shapes: Record<string, number[]>}} Packet
 */

/** @param {ArrayBuffer} buffer @returns {Packet} */
export function unpacked(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true))
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)))
  const { __metadata__: metadata, ...listed } = header, arrays = {}, shapes = {}
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(listed)) {
    const bytes = buffer.slice(8 + length + from, 8 + length + to) // a copy is aligned
    arrays[name] = { F32: () => new Float32Array(bytes), F16: () => fromHalf(new Uint16Array(bytes)),
      I32: () => new Int32Array(bytes), U8: () => new Uint8Array(bytes) }[dtype]()
    shapes[name] = shape
  }
  return { told: JSON.parse(metadata.live), arrays, shapes }
}

/** IEEE 754 binary16 as float32. @param {Uint16Array} halves */
function fromHalf(halves) {
  const out = new Float32Array(halves.length)
  for (let i = 0; i < halves.length; i++) {
    const h = halves[i], exponent = (h >> 10) & 31, fraction = h & 1023
    const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24
    out[i] = h & 0x8000 ? -size : size
  }
  return out
}

/** @type {Map<string, Promise<Packet>>} packets by address, the latest last */
const kept = new Map()
const MOST_KEPT = 300 // frames of a clip are 60 kB each

/**
 * Fetch a packet once. Rejects with the server's own sentence where there is none.
 * @param {{fetchApi: (path: string) => Promise<Response>}} api ComfyUI's client @param {string} path
 */
export function fetched(api, path) {
  const known = kept.get(path)
  if (known) return known
  const asked = api.fetchApi(path).then(async (reply) => {
    if (!reply.ok) throw new Error((await reply.json().catch(() => ({}))).error ?? `the server answered ${reply.status}`)
    return unpacked(await reply.arrayBuffer())
  })
  kept.set(path, asked)
  asked.catch(() => kept.delete(path))
  if (kept.size > MOST_KEPT) kept.delete([...kept.keys()].find((p) => !p.includes("/head/")))
  return asked
}
