/**
 * Rotations as axis-angle vectors in radians and as 3 x 3 matrices, row by row. They compose, they are never added.
 * @typedef {ArrayLike<number>} Vector
 */

/** Rodrigues' formula. @param {Vector} v @returns {number[]} */
export function toMatrix([x, y, z]) {
  const angle = Math.hypot(x, y, z)
  const s = angle < 1e-8 ? 1 : Math.sin(angle) / angle
  const c = angle < 1e-8 ? 0.5 : (1 - Math.cos(angle)) / (angle * angle)
  return [
    1 - c * (y * y + z * z), c * x * y - s * z, c * x * z + s * y,
    c * x * y + s * z, 1 - c * (x * x + z * z), c * y * z - s * x,
    c * x * z - s * y, c * y * z + s * x, 1 - c * (x * x + y * y),
  ]
}

/** By the unit quaternion, whose largest part is taken first. @param {Vector} m @returns {number[]} of length pi at most */
export function fromMatrix(m) {
  const squares = [1 + m[0] + m[4] + m[8], 1 + m[0] - m[4] - m[8], 1 - m[0] + m[4] - m[8], 1 - m[0] - m[4] + m[8]]
  const k = squares.indexOf(Math.max(...squares)), d = Math.sqrt(squares[k]), r = 0.5 / d
  const q = [
    [d / 2, (m[7] - m[5]) * r, (m[2] - m[6]) * r, (m[3] - m[1]) * r],
    [(m[7] - m[5]) * r, d / 2, (m[1] + m[3]) * r, (m[2] + m[6]) * r],
    [(m[2] - m[6]) * r, (m[1] + m[3]) * r, d / 2, (m[5] + m[7]) * r],
    [(m[3] - m[1]) * r, (m[2] + m[6]) * r, (m[5] + m[7]) * r, d / 2],
  ][k]
  const sign = q[0] < 0 ? -1 : 1, length = Math.hypot(q[1], q[2], q[3])
  const factor = length < 1e-12 ? 2 : (2 * Math.atan2(length, sign * q[0])) / length
  return [q[1], q[2], q[3]].map((x) => sign * factor * x)
}

/** @param {Vector} a @param {Vector} b @returns {number[]} a b */
export function product(a, b) {
  const out = new Array(9)
  for (let i = 0; i < 3; i++)
    for (let j = 0; j < 3; j++) out[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j]
  return out
}

/** The last one acts first. @param {...Vector} turns */
export const compose = (...turns) => fromMatrix(turns.map((t) => toMatrix(t)).reduce(product))

/** So much of a turn; one by more than pi counts as the shorter one back. @param {Vector} turn @param {number} factor */
export const scaled = (turn, factor) => fromMatrix(toMatrix(turn)).map((x) => x * factor)
