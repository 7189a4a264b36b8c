/**
 * Time under the head: a ruler with the playhead, and a lane for each slider that has keyframes.
 * @typedef {{seek: (frame: number) => void, play: () => void, move: (name: string, from: number, to: number) => void,
 *   drop: (name: string, frame: number) => void, done: () => void}} Listener
 */
import { drawn, element } from "./dom.js"
import { sampled } from "./keyframes.js"
import { spoken } from "./regions.js"

const LANE = 22 // pixels

export class Strip {
  /** @param {Listener} listener */
  constructor(listener) {
    this.listener = listener
    const play = { className: "f3d-play", ariaLabel: "Play", onclick: () => listener.play() }
    this.play = element("button", { type: "button", ...play })
    this.head = element("input", { type: "range", min: 0, step: 1, value: 0, className: "f3d-seek", ariaLabel: "frame",
      oninput: () => listener.seek(Number(this.head.value)) })
    this.head.addEventListener("keydown", (e) => e.stopPropagation())
    this.said = element("output", { className: "f3d-said" })
    this.lanes = element("div", { className: "f3d-lanes" })
    this.note = element("div", { className: "f3d-note", role: "status" })
    this.element = element("div", { className: "f3d-strip" },
      element("div", { className: "f3d-time" }, this.play, this.head, this.said), this.lanes, this.note)
  }

  /**
   * @param {{frame: number, frames: number, span: number, playing: boolean, curves: any[], note: string}} shown
   *   `frames`: of the clip; `span`: of the ruler
   */
  show({ frame, frames, span, playing, curves, note }) {
    this.play.textContent = playing ? "❚❚" : "▶"
    this.play.disabled = frames < 2
    this.head.disabled = span < 2
    this.head.max = String(Math.max(span - 1, 1))
    this.head.value = String(frame)
    this.said.textContent = frames < 2 && !frame ? "still" : `${frame} / ${frames - 1}`
    this.element.style.setProperty("--here", String(span < 2 ? 0 : frame / (span - 1)))
    this.element.style.setProperty("--end", String(span < 2 ? 1 : (frames - 1) / (span - 1)))
    if (this.note.textContent !== note) this.note.textContent = note
    const told = JSON.stringify([span, curves])
    if (this.told === told || this.dragging) return
    this.told = told
    this.lanes.replaceChildren(...curves.map((c) => this.#lane(c, span)))
  }

  #lane(curve, span) {
    const last = Math.max(span - 1, 1), values = curve.keys.map(([, v]) => v)
    const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)]
    const height = (v) => LANE - 5 - ((v - low) / (high - low || 1)) * (LANE - 10)
    const at = (t) => `${1000 * t},${height(sampled(curve, t * last)).toFixed(2)}`
    const line = Array.from({ length: 121 }, (_, i) => at(i / 120))
    const picture = drawn("svg", { viewBox: `0 0 1000 ${LANE}`, preserveAspectRatio: "none", "aria-hidden": "true" })
    picture.append(drawn("polygon", { points: `0,${height(0)} ${line.join(" ")} 1000,${height(0)}`, class: "f3d-area" }),
      drawn("polyline", { points: line.join(" "), class: "f3d-curve" }))
    const track = element("div", { className: "f3d-track" })
    track.append(picture, ...curve.keys.map(([f, v]) => this.#key(curve.name, f, v, height(v), last, track)))
    return element("div", { className: "f3d-lane" }, element("span", { textContent: spoken(curve.name) }), track)
  }

  #key(name, frame, value, y, last, track) {
    const said = `${spoken(name)} ${Number(value.toFixed(3))} at frame ${frame}`
    const key = element("button", {
      type: "button", className: "f3d-diamond", title: `${said}\nDrag to move, double-click to delete`, ariaLabel: said,
      ondblclick: () => this.#drop(name, frame),
    })
    const place = (f) => (key.style.left = `${(100 * f) / last}%`)
    place(frame)
    key.style.top = `${y}px`
    let to = frame
    key.onpointerdown = (e) => {
      e.stopPropagation()
      key.setPointerCapture(e.pointerId)
      this.dragging = true
    }
    key.onpointermove = (e) => {
      if (!key.hasPointerCapture(e.pointerId)) return
      const box = track.getBoundingClientRect()
      to = Math.round(Math.min(Math.max((e.clientX - box.left) / box.width, 0), 1) * last)
      place(to)
    }
    key.onpointerup = () => {
      this.dragging = false
      this.told = ""
      if (to === frame) this.listener.seek(frame)
      else this.#move(name, frame, to)
    }
    key.onpointercancel = () => ((this.dragging = false), (this.told = ""))
    key.onkeydown = (e) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[e.key]
      if (step && frame + step >= 0) this.#move(name, frame, frame + step)
      else if (e.key === "Delete" || e.key === "Backspace") this.#drop(name, frame)
      else if (e.key === "Enter") this.listener.seek(frame)
      else return
      e.preventDefault()
      e.stopPropagation()
    }
    return key
  }

  #move(name, from, to) {
    this.listener.move(name, from, to)
    this.listener.done()
    const moved = (b) => b.ariaLabel.startsWith(`${spoken(name)} `) && b.ariaLabel.endsWith(` ${to}`)
    const focus = () => [...this.lanes.querySelectorAll("button")].find(moved)?.focus() // another element now
    requestAnimationFrame(() => requestAnimationFrame(focus))
  }

  #drop(name, frame) {
    this.listener.drop(name, frame)
    this.listener.done()
  }
}
