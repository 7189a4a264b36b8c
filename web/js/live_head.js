/** One node's live head: its picture, panel and strip, and what they say to the node's widgets. */
import { element } from "./dom.js"
import { edited, restFrame } from "./edits.js"
import { parsed, sampled, withKey, withKeys } from "./keyframes.js"
import { lensOn } from "./lens.js"
import { vertices } from "./mesh.js"
import { fetched } from "./packet.js"
import { Panel } from "./panel.js"
import { GROUPS } from "./regions.js"
import { Stage } from "./stage.js"
import { Strip } from "./strip.js"
import { colours, styled } from "./style.js"
import { isLinked, read, restOf, widgetOf, write } from "./values.js"

const ROUTE = "/flow3d/live"
const AHEAD = 8 // frames that are asked for before they are played
const SPAN = 49 // frames on the ruler of a still, at least

export class LiveHead {
  chosen = ""
  frame = 0
  #alive = true
  /** @type {string | undefined} */ asked = undefined // the track that was asked for last
  #signature = ""
  #started = 0 // when playing: milliseconds at frame 0
  /** @type {{track: string, head: string, frames: number} | null} */ track = null

  /** @param {any} node @param {any} api ComfyUI's client @param {() => void} changed told when a gesture is finished */
  constructor(node, api, changed) {
    Object.assign(this, { node, api, changed })
    styled()
    const done = () => changed()
    this.stage = new Stage({
      done, choose: (region) => (this.chosen = region), reset: (region) => this.reset(region),
      turn: (...by) => ["yaw", "pitch", "roll"].forEach((n, i) => by[i] && this.#add(n, by[i])),
    })
    const key = (name) => (this.setKey(name), done())
    this.panel = new Panel(node, { done, key, choose: (id) => (this.chosen = id) })
    this.strip = new Strip({
      done, seek: (f) => this.seek(f), play: () => this.play(),
      move: (name, from, to) => this.#rekey(name, (keys) => {
        const [, value] = keys.find(([f]) => f === from)
        return withKey(keys.filter(([f]) => f !== from), to, value)
      }),
      drop: (name, frame) => this.#rekey(name, (keys) => keys.filter(([f]) => f !== frame)),
    })
    this.whose = element("div", { className: "f3d-whose" })
    this.angles = element("div", { className: "f3d-angles" })
    const picture = element("div", { className: "f3d-stage" }, this.stage.canvas, this.whose, this.angles)
    this.element = element("div", { className: "f3d-live" }, picture, this.panel.element, this.strip.element)
    for (const kind of ["pointerdown", "wheel", "contextmenu"])
      this.panel.element.addEventListener(kind, (e) => e.stopPropagation())
    this.ready = this.#load(null)
  }

  /** The track that a run left for the page. @param {{track: string, head: string, frames: number} | null} track */
  show(track) {
    if (track && this.asked === track.track) return this.ready
    this.asked = track?.track
    return (this.ready = this.#load(track))
  }

  async #load(track) {
    try {
      const head = await fetched(this.api, `${ROUTE}/head/${track?.head || "open"}`)
      const first = track ? await fetched(this.api, `${ROUTE}/track/${track.track}/0`) : restFrame(head)
      if (!this.#alive || this.asked !== track?.track) return // a later one was asked for meanwhile
      const lens = lensOn(vertices(head, first, edited(head, first, {})))
      Object.assign(this, { head, first, now: first, lens, track, fault: "" })
    } catch (error) {
      if (!this.head) this.fault = String(error.message ?? error)
      // otherwise what is shown stays: the server may have forgotten an old run
    }
    this.#signature = ""
  }

  /** Frames there are to see: the track's, or what its keyframes make of a still. */
  get frames() {
    const own = this.track?.frames ?? 1
    return own > 1 ? own : this.wanted?.frames ?? 1
  }

  /** Frames on the ruler: a still's has room for the next keyframe, unless the node says how many there are. */
  get span() {
    const own = this.track?.frames ?? 1
    if (own > 1 || this.wanted?.fixed) return this.frames
    return Math.max(SPAN, Math.ceil(this.frames * 1.25))
  }

  /** Called for each picture of the page: looks whether anything has changed, and draws if so. */
  tick(time) {
    if (!this.#alive || !this.element.isConnected || !this.element.offsetParent) return
    const played = (time - this.#started) / 1000
    if (this.#started) this.frame = Math.floor(Math.max(played, 0) * (this.first?.told.fps ?? 25)) % this.frames
    const box = this.stage.canvas.getBoundingClientRect()
    const values = this.node.widgets.map((w) => (w === this.widget ? "" : w.value))
    const signature = [...values, this.frame, this.chosen, this.#started,
      this.stage.hovered, box.width, box.height, window.devicePixelRatio, getComputedStyle(this.element).color, this.fault,
      this.now?.told.frame, this.node.inputs?.map((i) => i.link)].join("|")
    if (signature === this.#signature) return
    this.#signature = signature
    try {
      if (this.head) this.#draw()
    } catch (error) {
      this.fault = String(error.message ?? error) // no more WebGL: the panel and the sliders still work
    }
    if (this.fault) this.whose.textContent = this.fault
  }

  #draw() {
    this.wanted = read(this.node, this.head.told)
    this.frame = Math.min(this.frame, this.span - 1)
    this.#fetchFrame()
    const points = vertices(this.head, this.now, edited(this.head, this.now, this.wanted.at(this.frame)))
    this.points = points
    this.stage.draw({ head: this.head, points, lens: this.lens, chosen: this.chosen, colours: colours(this.element) })
    const { settings, fault } = this.wanted
    this.panel.show(this.chosen, new Set(settings.curves.map((c) => c.name)))
    this.strip.show({
      frame: this.frame, frames: this.frames, span: this.span, playing: !!this.#started, curves: settings.curves,
      note: this.fault || fault || this.#unseen(),
    })
    const [yaw, pitch] = ["yaw", "pitch"].map((n) => Math.round(this.wanted.at(this.frame)[n] ?? 0))
    this.whose.textContent = this.track ? "your portrait" : "a neutral head until the first run"
    this.angles.textContent = `yaw ${yaw}°  pitch ${pitch}°`
  }

  /** A clip's frame comes when it is needed; until then the one before stays. */
  #fetchFrame() {
    const wanted = (this.track?.frames ?? 1) > 1 ? this.frame : 0, { track } = this
    if (!track || this.now.told.frame === wanted) return
    fetched(this.api, `${ROUTE}/track/${track.track}/${wanted}`).then((packet) => {
      if (this.track === track && (this.#started || this.frame === wanted)) this.now = packet
    }, () => {})
    for (let ahead = 1; this.#started && ahead <= AHEAD; ahead++)
      fetched(this.api, `${ROUTE}/track/${track.track}/${(wanted + ahead) % track.frames}`).catch(() => {})
  }

  #unseen() {
    const linked = [...GROUPS.flatMap((g) => g.widgets), "keyframes", "more", "curve"].filter((n) => isLinked(this.node, n))
    return linked.length ? `${linked.join(", ")}: connected, not shown here` : ""
  }

  seek(frame) {
    this.#started = 0
    this.wanted = read(this.node, this.head.told)
    this.frame = Math.max(0, Math.min(frame, this.span - 1))
  }

  play() {
    const perFrame = 1000 / (this.first?.told.fps ?? 25)
    this.#started = this.#started ? 0 : performance.now() - this.frame * perFrame
  }

  /** A region's sliders at rest; "" is the pose, null everything. @param {string | null} region */
  reset(region) {
    for (const group of GROUPS) if (region === null || group.id === region)
      for (const name of group.widgets) write(this.node, name, restOf(this.node, name))
  }

  /** A keyframe at this frame with what the slider does there; the slider itself goes back to rest. @param {string} name */
  setKey(name) {
    this.wanted = read(this.node, this.head.told)
    const slider = Number(widgetOf(this.node, name).value), gain = name in this.head.told.gains
    const curve = this.wanted.settings.curves.find((c) => c.name === name)
    const own = curve ? sampled(curve, this.frame) : gain ? 1 : 0
    this.#rekey(name, (keys) => withKey(keys, this.frame, gain ? own * slider : own + slider))
    write(this.node, name, restOf(this.node, name))
  }

  #rekey(name, change) {
    const text = (field) => String(widgetOf(this.node, field)?.value ?? "")
    const field = parsed(text("more")).curves.some((c) => c.name === name) ? "more" : "keyframes"
    write(this.node, field, withKeys(text(field), name, change))
  }

  #add(name, more) {
    write(this.node, name, Number(widgetOf(this.node, name)?.value ?? 0) + more)
  }

  /**
   * The vertices that the page computes for some values, without touching the widgets: camera frame, metres.
   * @param {Record<string, number>} values @param {number} frame of the track
   */
  async verticesFor(values, frame = 0) {
    await this.ready
    const now = this.track ? await fetched(this.api, `${ROUTE}/track/${this.track.track}/${frame}`) : this.first
    return vertices(this.head, now, edited(this.head, now, values))
  }

  free() {
    this.#alive = false
    this.stage.free()
    this.element.remove()
  }
}
