/**
 * A head's vertices: bases, pose correctives, linear blend skinning (flow3d/head/model.py and skinning.py), and normals.
 * @typedef {import("./packet.js").Packet} Packet
 */
import { product, toMatrix } from "./rotations.js"

/**
 * Vertices in the camera frame, metres, three numbers each.
 * @param {Packet} head @param {Packet} frame whose face it is @param {import("./edits.js").State} state
 */
export function vertices(head, frame, state) {
  const turns = state.joints.map((t) => toMatrix(t))
  const rest = expressed(head, frame.arrays.rest, state.expression, turns)
  const posed = skinned(rest, head, jointTransforms(frame.arrays.skeleton, turns, head.told.parents))
  return toCamera(posed, frame.arrays.skeleton, toMatrix(state.rotation), state.translation)
}

function expressed({ arrays }, rest, expression, turns) {
  const out = Float32Array.from(rest)
  add(out, arrays.expression_basis, expression)
  if (arrays.pose_basis) add(out, arrays.pose_basis, turns.flatMap((m) => m.map((x, i) => x - (i % 4 ? 0 : 1))))
  return out
}

/** `out += sum of weights[k] basis[k]`, in place. */
function add(out, basis, weights) {
  for (let k = 0; k < weights.length; k++) {
    const weight = weights[k], at = k * out.length
    if (weight) for (let i = 0; i < out.length; i++) out[i] += weight * basis[at + i]
  }
}

/** @returns {number[][]} for each joint a 3 x 4 matrix, row by row, relative to the rest pose */
function jointTransforms(skeleton, turns, parents) {
  const at = (j) => [skeleton[3 * j], skeleton[3 * j + 1], skeleton[3 * j + 2]]
  const rotations = [[1, 0, 0, 0, 1, 0, 0, 0, 1]], places = [at(0)]
  for (let j = 1; j < parents.length; j++) {
    const p = parents[j], bone = at(j).map((x, i) => x - at(p)[i])
    rotations.push(product(rotations[p], turns[j - 1]))
    places.push(turned(rotations[p], bone).map((x, i) => x + places[p][i]))
  }
  return rotations.map((m, j) => {
    const shift = turned(m, at(j)).map((x, i) => places[j][i] - x)
    return [0, 1, 2].flatMap((i) => [m[3 * i], m[3 * i + 1], m[3 * i + 2], shift[i]])
  })
}

const turned = (m, [x, y, z]) => [0, 3, 6].map((i) => m[i] * x + m[i + 1] * y + m[i + 2] * z)

function skinned(rest, { arrays }, transforms) {
  const out = new Float32Array(rest.length), joints = transforms.length, weights = arrays.skin_weights
  for (let v = 0; v < rest.length / 3; v++) {
    const [x, y, z] = [rest[3 * v], rest[3 * v + 1], rest[3 * v + 2]]
    for (let j = 0; j < joints; j++) {
      const w = weights[v * joints + j]
      if (!w) continue
      const m = transforms[j]
      for (let i = 0; i < 3; i++) out[3 * v + i] += w * (m[4 * i] * x + m[4 * i + 1] * y + m[4 * i + 2] * z + m[4 * i + 3])
    }
  }
  return out
}

/** `rotation F (p - root) + translation` with F = diag(1, -1, -1). */
function toCamera(points, root, m, translation) {
  const out = new Float32Array(points.length)
  for (let v = 0; v < points.length; v += 3) {
    const p = turned(m, [points[v] - root[0], root[1] - points[v + 1], root[2] - points[v + 2]])
    for (let i = 0; i < 3; i++) out[v + i] = p[i] + translation[i]
  }
  return out
}

/** Unit normals out of the surface, weighted by area. @param {Float32Array} points @param {Int32Array} faces */
export function normals(points, faces) {
  const out = new Float32Array(points.length)
  for (let f = 0; f < faces.length; f += 3) {
    const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]]
    const [ux, uy, uz] = [points[b] - points[a], points[b + 1] - points[a + 1], points[b + 2] - points[a + 2]]
    const [vx, vy, vz] = [points[c] - points[a], points[c + 1] - points[a + 1], points[c + 2] - points[a + 2]]
    const n = [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx]
    for (const corner of [a, b, c]) for (let i = 0; i < 3; i++) out[corner + i] += n[i]
  }
  for (let v = 0; v < out.length; v += 3) {
    const length = Math.hypot(out[v], out[v + 1], out[v + 2]) || 1
    for (let i = 0; i < 3; i++) out[v + i] /= length
  }
  return out
}
