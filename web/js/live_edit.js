/**
 * FLAME Edit, live: puts a head that follows the sliders at once into the node. It reads and writes the node's ordinary
 * widgets and nothing else, so that the same graph runs by the API; without WebGL 2 the node is as it was.
 */
import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { chained, fold } from "./fold.js"
import { LiveHead } from "./live_head.js"
import { canDraw } from "./renderer.js"

const NODE = "Flow3DFLAMEEdit"
const [WIDTH, HEIGHT] = [430, 660] // of a new node, and at least of the live part
/** @type {Set<LiveHead>} */
const alive = new Set()

/** What a node showed when it went: undo makes all nodes anew. @type {Map<any, {chosen: string, frame: number, at: number}>} */
const gone = new Map()
const SOON = 3000 // milliseconds

function tick(time) {
  if (!alive.size) return
  for (const live of alive) {
    again(live)
    const left = app.nodeOutputs?.[live.node.id]?.flow3d_live?.[0] // of a run before the workflow was opened again, too
    if (left && left.track !== live.asked) live.show(left)
    live.tick(time)
  }
  requestAnimationFrame(tick)
}

function again(live) {
  const was = gone.get(live.node.id)
  if (!was) return
  gone.delete(live.node.id)
  if (performance.now() - was.at < SOON) Object.assign(live, { chosen: was.chosen, frame: was.frame })
}

const tracker = () => app.extensionManager?.workflow?.activeWorkflow?.changeTracker

function added(node) {
  const live = new LiveHead(node, api, () => tracker()?.checkState())
  const widget = node.addDOMWidget("live", "flow3d_live", live.element, {
    serialize: false, hideOnZoom: false, margin: 8, getMinHeight: () => HEIGHT, getMaxHeight: () => 1400,
  })
  widget.serialize = false // not part of the workflow
  live.widget = widget
  node.widgets.unshift(node.widgets.pop()) // above the sliders
  chained(node, "onSerialize", (saved) => {
    // LiteGraph leaves a hole for a widget that is not saved, and does not skip it when it reads
    saved.widgets_values = node.widgets.filter((w) => w.serialize !== false).map((w) => w.value)
  })
  chained(node, "onExecuted", (output) => output?.flow3d_live?.[0] && live.show(output.flow3d_live[0]))
  chained(node, "onRemoved", () => {
    gone.set(node.id, { chosen: live.chosen, frame: live.frame, at: performance.now() })
    alive.delete(live)
    live.free()
  })
  passedOn(live)
  node.flow3dLive = live
  fold(node, live.element)
  node.setSize([Math.max(node.size[0], WIDTH), node.computeSize()[1]])
  alive.add(live)
  if (alive.size === 1) requestAnimationFrame(tick)
}

/** The canvas still zooms by the wheel and pans by the middle button; undo works while a slider has the focus. */
function passedOn({ element, stage: { canvas } }) {
  canvas.addEventListener("wheel", (e) => app.canvas.processMouseWheel(e), { passive: false })
  const middle = (e) => e.button === 1 || e.buttons & 4
  for (const event of ["Down", "Move", "Up"])
    canvas.addEventListener(`pointer${event.toLowerCase()}`, (e) => middle(e) && app.canvas[`processMouse${event}`](e))
  element.addEventListener("keydown", (e) => {
    if (!(e.ctrlKey || e.metaKey) || e.target.tagName !== "INPUT" || !/^[zy]$/i.test(e.key)) return
    e.preventDefault()
    e.stopPropagation()
    tracker()?.undoRedo(e)
  }, true)
}

app.registerExtension({
  name: "flow3d.liveEdit",
  nodeCreated(node) {
    if (node.comfyClass === NODE && node.addDOMWidget && canDraw()) added(node)
  },
})
