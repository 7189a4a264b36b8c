/**
 * What a view looks at: the portrait's own camera stands still, and the picture is the part of its image plane where the
 * unedited head is. So the head moves in the view as it will in the picture.
 * @typedef {import("./packet.js").Packet} Packet
 */

const [ROOM, SHOWN] = [1.12, 0.9] // around the head; how much of its height, from the top

/** @param {Float32Array} points the unedited head, camera frame @returns {import("./renderer.js").Lens} */
export function lensOn(points) {
  let [left, right, top, bottom, near, far] = [Infinity, -Infinity, Infinity, -Infinity, Infinity, 0]
  for (let v = 0; v < points.length; v += 3) {
    const [x, y] = [points[v] / points[v + 2], points[v + 1] / points[v + 2]]
    left = Math.min(left, x), right = Math.max(right, x), top = Math.min(top, y), bottom = Math.max(bottom, y)
    near = Math.min(near, points[v + 2]), far = Math.max(far, points[v + 2])
  }
  const height = (bottom - top) * SHOWN
  return { scale: 2 / (ROOM * height), x: (left + right) / 2, y: top + height / 2, near: near - 0.7, far: far + 0.7 }
}

/**
 * What part of the face is under a point of the picture: a region's name, "" for the rest of the head, null beside it.
 * @param {Packet} head @param {Float32Array} points @param {import("./renderer.js").Lens} lens
 * @param {number} u from the left and @param {number} v from the top, in heights of the picture, from its middle
 */
export function under(head, points, lens, u, v) {
  const { faces, regions } = head.arrays, n = points.length / 3
  const [x, y] = [lens.x + (2 * u) / lens.scale, lens.y + (2 * v) / lens.scale]
  const plane = new Float64Array(2 * n)
  for (let i = 0; i < n; i++) plane.set([points[3 * i] / points[3 * i + 2] - x, points[3 * i + 1] / points[3 * i + 2] - y], 2 * i)
  let nearest = Infinity, share = null
  for (let f = 0; f < faces.length; f += 3) {
    const corners = [faces[f], faces[f + 1], faces[f + 2]]
    const [a, b, c] = corners.map((i, k) => {
      const j = corners[(k + 1) % 3]
      return plane[2 * i] * plane[2 * j + 1] - plane[2 * i + 1] * plane[2 * j]
    })
    if (!((a >= 0 && b >= 0 && c >= 0) || (a <= 0 && b <= 0 && c <= 0)) || a + b + c === 0) continue
    const weights = [b, c, a].map((w) => w / (a + b + c))
    const z = corners.reduce((sum, i, k) => sum + weights[k] * points[3 * i + 2], 0)
    if (z >= nearest) continue
    nearest = z
    share = [0, 1, 2, 3].map((r) => corners.reduce((sum, i, k) => sum + weights[k] * regions[4 * i + r], 0) / 255)
  }
  if (!share) return null
  const most = share.indexOf(Math.max(...share))
  return share[most] > 0.35 ? head.told.regions[most] : ""
}
