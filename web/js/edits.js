/**
 * What FLAME Edit makes of one frame. The order of things is `edit_track`'s (flow3d/fit/edit.py); every sign, weight and
 * name comes with the head's packet.
 * @typedef {import("./packet.js").Packet} Packet
 * @typedef {Record<string, number>} Values a number for each edit; what is left out is at rest
 * @typedef {{expression: Float64Array, joints: number[][], rotation: number[], translation: number[]}} State
 */
import { compose, scaled } from "./rotations.js"

const clamp = (x, low, high) => Math.min(Math.max(x, low), high)
const triples = (flat) => Array.from({ length: flat.length / 3 }, (_, i) => Array.from(flat.subarray(3 * i, 3 * i + 3)))
const same = (a, b) => a.every((x, i) => x === b[i])

/** A frame of a head that nothing was fitted to: mean face, at rest, before the camera. @param {Packet} head */
export function restFrame({ told, arrays, shapes }) {
  const none = (n) => new Float32Array(n)
  const [e, j] = [shapes.expression_basis[0], told.joints.length]
  return {
    told: { frames: 1, frame: 0, fps: 25, head: told.digest, shut: 0 },
    shapes: {},
    arrays: {
      rest: arrays.rest, skeleton: arrays.skeleton, expression: none(e), joints: none(3 * j), rotation: none(3),
      translation: new Float32Array([0, 0, 1]), first_expression: none(e), first_joints: none(3 * j), first_rotation: none(3),
    },
  }
}

/** @param {Packet} head @param {Packet} frame @param {Values} values @returns {State} */
export function edited(head, frame, values) {
  const tables = head.told, a = frame.arrays
  const state = {
    expression: Float64Array.from(a.expression), joints: triples(a.joints),
    rotation: Array.from(a.rotation), translation: Array.from(a.translation),
  }
  neutralised(tables, frame, state, values[tables.neutralise] ?? 0)
  for (const [name, part] of Object.entries(tables.gains)) {
    const gain = values[name] ?? 1
    if (gain === 1) continue
    if (part === "pose") poseAmplified(tables, a, state, gain)
    else amplified(tables, state, part, gain)
  }
  const before = state.expression.slice()
  const weights = new Map(tables.names.map((n, i) => [n, tables.named ? before[i] : 0]))
  look(tables, weights, state, values)
  move(tables, state, values)
  raise(tables, weights, values)
  if (tables.named) express(tables, state, weights, before, values)
  else map(head, state, weights)
  return state
}

/** Parts of the first frame's expression and jaw taken away. */
function neutralised(tables, frame, state, amount) {
  if (!amount) return
  const before = state.expression.slice(), first = frame.arrays.first_expression
  for (let i = 0; i < before.length; i++) {
    if (tables.expressionParts[i] === "eyes") continue
    const less = first[i] - (tables.names[i] === "mouthClose" ? frame.told.shut : 0)
    state.expression[i] = within(tables, before[i] - amount * less, before[i])
  }
  const jaw = tables.joints.indexOf("jaw")
  if (jaw >= 0) {
    const turn = scaled(triples(frame.arrays.first_joints)[jaw], -amount)
    state.joints[jaw] = compose(state.joints[jaw], turn)
  }
}

function amplified(tables, state, part, gain) {
  const mine = part === "expression" ? (p) => p !== "jaw" && p !== "eyes" : (p) => p === part
  state.expression = state.expression.map((x, i) => (mine(tables.expressionParts[i]) ? within(tables, x * gain, x) : x))
  state.joints = state.joints.map((turn, j) => (tables.jointParts[j] === part ? scaled(turn, gain) : turn))
}

/** The turns of head and neck since the first frame, times a gain. */
function poseAmplified(tables, arrays, state, gain) {
  const more = (turn, first) =>
    same(turn, first) ? turn : compose(scaled(compose(turn, first.map((x) => -x)), gain), first)
  const firsts = triples(arrays.first_joints)
  state.rotation = more(state.rotation, Array.from(arrays.first_rotation))
  state.joints = state.joints.map((turn, j) => (tables.jointParts[j] === "pose" ? more(turn, firsts[j]) : turn))
}

/** The eyes turn; lids follow up and down (flow3d/fit/gaze.py). */
function look(tables, weights, state, values) {
  const { gaze } = tables
  for (const [side, joint] of Object.entries(gaze.sides)) {
    const j = tables.joints.indexOf(joint)
    const [yaw, pitch] = ["gazeYaw", "gazePitch"].map((n) => (values[n] ?? 0) + (values[n + side] ?? 0))
    const left = pitch ? lidsFollow(gaze, weights, side, pitch) : 0
    if (j < 0 || (!yaw && !left)) continue
    const turns = [gaze.yaw.map((x) => x * yaw), gaze.pitch.map((x) => x * left)]
    state.joints[j] = compose(state.joints[j], ...turns)
  }
}

/** @returns {number} degrees that the joint still has to turn */
function lidsFollow(gaze, weights, side, pitch) {
  const [up, down, wide] = ["eyeLookUp", "eyeLookDown", "eyeWide"].map((n) => n + side)
  if (!weights.has(up) || !weights.has(down)) return pitch
  const room = (name, more) => Math.min(more, Math.max(1 - weights.get(name), 0))
  let [rise, fall] = [Math.max(pitch, 0), Math.max(-pitch, 0)]
  const downLess = Math.min(Math.max(weights.get(down), 0), rise * gaze.down)
  const upLess = Math.min(Math.max(weights.get(up), 0), fall * gaze.up)
  rise -= downLess / gaze.down
  fall -= upLess / gaze.up
  const [upMore, downMore] = [room(up, rise * gaze.up), room(down, fall * gaze.down)]
  if (weights.has(wide)) weights.set(wide, weights.get(wide) + room(wide, rise * gaze.wide))
  weights.set(up, weights.get(up) + upMore - upLess)
  weights.set(down, weights.get(down) + downMore - downLess)
  return pitch - gaze.lookUp * (upMore - upLess) + gaze.lookDown * (downMore - downLess)
}

/** Pose, place, and a jaw that opens by its joint. */
function move(tables, state, values) {
  const turns = tables.pose.map(([name, axis]) => axis.map((x) => x * (values[name] ?? 0)))
  if (turns.flat().some(Boolean)) state.rotation = compose(state.rotation, ...turns)
  for (const [name, step] of tables.shift) step.forEach((x, i) => (state.translation[i] += x * (values[name] ?? 0)))
  const jaw = tables.joints.indexOf("jaw")
  if (tables.jawByJoint && values.jawOpen)
    state.joints[jaw] = compose(state.joints[jaw], tables.jawByJoint.map((x) => x * values.jawOpen))
}

/** The sliders added to named weights. One with an opposite takes that away before it raises its own. */
function raise(tables, weights, values) {
  const get = (n) => weights.get(n)
  for (const [name, value] of Object.entries(values)) {
    for (const [up, down, full] of tables.sliders[name] ?? []) {
      if (down === null) {
        weights.set(up, get(up) + full * value)
        continue
      }
      const [rise, fall] = [Math.max(value, 0), Math.max(-value, 0)]
      const downLess = Math.min(Math.max(get(down), 0), rise)
      const upLess = Math.min(Math.max(get(up), 0), full * fall)
      weights.set(up, get(up) + full * (rise - downLess) - upLess)
      weights.set(down, get(down) + (fall - upLess / full) - downLess)
    }
  }
}

function express(tables, state, weights, before, values) {
  if (values.mouthClose !== undefined && weights.has("jawOpen")) {
    const most = Math.max(Math.min(weights.get("jawOpen"), 1), before[tables.names.indexOf("mouthClose")])
    weights.set("mouthClose", Math.min(weights.get("mouthClose"), most))
  }
  tables.names.forEach((name, i) => (state.expression[i] = within(tables, weights.get(name), before[i])))
}

/** ARKit's weights on a head without names: what its map makes of them is added. */
function map({ told, arrays }, state, weights) {
  const [e, j] = [state.expression.length, state.joints.length]
  const turns = state.joints.map(() => [0, 0, 0])
  told.names.forEach((name, k) => {
    const weight = weights.get(name)
    if (!weight) return
    for (let i = 0; i < e; i++) state.expression[i] += weight * arrays.map_expression[k * e + i]
    for (let i = 0; i < 3 * j; i++) turns[Math.floor(i / 3)][i % 3] += weight * arrays.map_joints[3 * k * j + i]
  })
  state.joints = state.joints.map((turn, i) => (turns[i].some(Boolean) ? compose(turn, turns[i]) : turn))
}

/** Named expressions stay within 0..1, or as far beyond as they were. */
function within(tables, wanted, before) {
  return tables.named ? clamp(wanted, Math.min(0, before), Math.max(1, before)) : wanted
}
