/**
 * The picture of the head: it draws, turns under the pointer or the arrow keys, and tells what was clicked.
 * @typedef {{turn: (yaw: number, pitch: number, roll: number) => void, choose: (region: string) => void,
 *   reset: (region: string | null) => void, done: () => void}} Listener
 */
import { under } from "./lens.js"
import { Renderer } from "./renderer.js"

const DEGREES = 0.45 // for each pixel of a drag
const STEP = 2 // degrees for each press of an arrow key
const SHARPEST = 2048 // pixels

export class Stage {
  #renderer = new Renderer()
  #press = null
  hovered = ""

  /** @param {Listener} listener */
  constructor(listener) {
    this.listener = listener
    this.canvas = document.createElement("canvas")
    this.canvas.tabIndex = 0
    this.canvas.setAttribute("role", "application")
    this.canvas.setAttribute("aria-label",
      "The head. Arrow keys turn it, with Shift left and right tilt it, Home resets what is chosen.")
    this.canvas.addEventListener("pointerdown", (e) => this.#down(e))
    this.canvas.addEventListener("pointermove", (e) => this.#move(e))
    this.canvas.addEventListener("pointerup", (e) => this.#up(e))
    this.canvas.addEventListener("pointercancel", () => (this.#press = null))
    this.canvas.addEventListener("pointerleave", () => (this.hovered = ""))
    this.canvas.addEventListener("dblclick", (e) => (this.listener.reset(this.#under(e)), this.listener.done()))
    this.canvas.addEventListener("keydown", (e) => this.#key(e))
  }

  /** @param {{head: any, points: Float32Array, lens: any, chosen: string, colours: any}} shown */
  draw(shown) {
    this.shown = shown
    const box = this.canvas.getBoundingClientRect(), sharp = window.devicePixelRatio || 1
    const [width, height] = [box.width, box.height].map((x) => Math.max(1, Math.min(SHARPEST, Math.round(x * sharp))))
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height })
    const context = this.canvas.getContext("2d")
    context.clearRect(0, 0, width, height)
    ground(context, shown.colours)
    const { head, colours } = shown
    const marked = head.told.regions.map((r) => (r === this.hovered ? 0.8 : r === shown.chosen ? 0.3 : 0))
    this.#renderer.draw(context, head, shown.points, shown.lens, { marked, accent: colours.accent, light: colours.light })
  }

  free() {
    this.#renderer.free()
  }

  #under(e) {
    if (!this.shown) return null
    const box = this.canvas.getBoundingClientRect(), { head, points, lens } = this.shown
    const [u, v] = [e.clientX - (box.left + box.right) / 2, e.clientY - (box.top + box.bottom) / 2].map((x) => x / box.height)
    return under(head, points, lens, u, v)
  }

  #down(e) {
    if (e.button) return
    e.stopPropagation()
    this.canvas.focus({ preventScroll: true })
    this.canvas.setPointerCapture(e.pointerId)
    this.#press = { x: e.clientX, y: e.clientY, moved: false }
  }

  #move(e) {
    if (!this.#press) {
      this.hovered = this.#under(e) || ""
      return
    }
    e.stopPropagation()
    const [dx, dy] = [e.clientX - this.#press.x, e.clientY - this.#press.y]
    if (!this.#press.moved && Math.hypot(dx, dy) < 4) return
    Object.assign(this.#press, { x: e.clientX, y: e.clientY, moved: true })
    if (e.shiftKey) this.listener.turn(0, 0, dx * DEGREES)
    else this.listener.turn(dx * DEGREES, -dy * DEGREES, 0)
  }

  #up(e) {
    const press = this.#press
    this.#press = null
    if (!press) return
    if (!press.moved) this.listener.choose(this.#under(e) ?? "")
    this.listener.done()
  }

  #key(e) {
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[e.key] ?? [0, 0]
    if (x || y) this.listener.turn(e.shiftKey ? 0 : x * STEP, y * STEP, e.shiftKey ? x * STEP : 0)
    else if (e.key === "Home") this.listener.reset(this.shown?.chosen ?? "")
    else return
    e.preventDefault()
    e.stopPropagation()
    this.listener.done()
  }
}

/** A backdrop that is lighter behind the head, and a soft shadow where the neck stands. */
function ground(context, { glow, edge, shadow }) {
  const { width, height } = context.canvas
  const back = context.createRadialGradient(width / 2, height * 0.42, 0, width / 2, height * 0.42, Math.max(width, height) * 0.68)
  back.addColorStop(0, glow)
  back.addColorStop(1, edge)
  context.fillStyle = back
  context.fillRect(0, 0, width, height)
  context.save()
  context.translate(width / 2, height * 0.97)
  context.scale(1, 0.16)
  const r = height * 0.42, under = context.createRadialGradient(0, 0, 0, 0, 0, r)
  under.addColorStop(0, shadow)
  under.addColorStop(1, "transparent")
  context.fillStyle = under
  context.fillRect(-r, -r, 2 * r, 2 * r)
  context.restore()
}
