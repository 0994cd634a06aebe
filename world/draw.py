"""
How the world looks: camera, primitives, things, cards, gripper, drawer and background, all in numpy.

World frame in metres: x away from the camera (up in the picture), y to the left, z up, table at z = 0.
Picture frame: column and row in [0, 1], row 0 on top. Pixels are float32 (S, S, 3) in 0..1, changed in place.

Everything is built from two ideas:
- A filled shape covers a pixel by clip(d + .5, 0, 1), where d is the signed distance in pixels from the
  middle of the pixel to the edge of the shape. This gives smooth edges without supersampling.
- Nearly every solid body, seen by a camera, is the convex hull of a few projected points.
"""
from dataclasses import dataclass
from functools import lru_cache
from math import cos, pi, radians, sin

import numpy as np

COLORS = dict(red=(.85, .13, .15), green=(.15, .62, .25), blue=(.13, .36, .85), yellow=(.98, .82, .12),
              purple=(.52, .22, .70), white=(.97, .97, .96), brown=(.48, .28, .13), black=(.09, .09, .11))
INK, LEAF, WOOD = (.12, .13, .17), (.25, .62, .20), (.66, .43, .22)
STEEL, IRON, PINK, CYAN = (.52, .56, .62), (.25, .26, .31), (1., .05, .62), (.10, .95, 1.)
SUN = np.array((-.25, .55, .80))  # the light comes from the upper left


def shade(rgb, k):
    """
    A colour k times as bright. With k above 1 it goes towards white, so that even black gets a lighter
    side.
    """
    return tuple(c * k if k <= 1 else c + (1 - c) * (k - 1) for c in rgb)


# ---------------------------------------------------------------- camera

class Camera:
    """
    A perspective camera in front of the table. tilt: degrees above the horizon (90 looks straight down);
    distance: metres to target; width: how many metres across the picture shows at target.
    """

    def __init__(self, tilt=65.0, distance=1.2, width=0.50, target=(.01, 0, .06)):
        c, s = cos(radians(tilt)), sin(radians(tilt))
        self.target, self.distance, self.zoom = np.array(target, float), distance, distance / width
        self.axes = np.array(((0, -1, 0), (s, 0, c), (c, 0, -s)), float).T  # columns: right, up, forward
        self.eye = self.target - distance * self.axes[:, 2]

    def picture(self, points):
        """
        points (..., 3) metres right, up and forward of target -> (..., 3) column, row, picture widths per
        metre.
        """
        out = np.empty(points.shape)
        scale = out[..., 2] = self.zoom / (self.distance + points[..., 2])
        out[..., 0] = .5 + scale * points[..., 0]
        out[..., 1] = .5 - scale * points[..., 1]
        return out

    def project(self, points):
        """
        points (..., 3) in metres -> (..., 3): column, row, picture widths per metre. Column and row are in
        [0, 1] where the point is in the picture.
        """
        return self.picture((np.asarray(points, float) - self.target) @ self.axes)

    def on_table(self, columns, rows, z=0.0):
        """
        Columns and rows in [0, 1], of any shape -> x, y in metres of the point that is seen there at height
        z.
        """
        rays = np.stack(((columns - .5) / self.zoom, (.5 - rows) / self.zoom, np.ones_like(rows)), -1)
        rays = rays @ self.axes.T
        far = (z - self.eye[2]) / np.minimum(rays[..., 2], -1e-3)
        return self.eye[0] + far * rays[..., 0], self.eye[1] + far * rays[..., 1]


# ---------------------------------------------------------------- primitives

MIDDLES = np.arange(1024, dtype=np.float32) + .5  # of pixel columns or rows


def _around(pixels, xs, ys, pad):
    """
    The part of the picture around the pixel coordinates xs, ys (lists): a view (h, 3w), pixel middles x
    (w,) and y (h,); None three times when nothing of it is in the picture.
    """
    size = pixels.shape[0]
    x0, x1 = max(int(min(xs) - pad), 0), min(int(max(xs) + pad) + 1, size)
    y0, y1 = max(int(min(ys) - pad), 0), min(int(max(ys) + pad) + 1, size)
    if x0 >= x1 or y0 >= y1:
        return None, None, None
    return pixels.reshape(size, -1)[y0:y1, 3 * x0:3 * x1], MIDDLES[x0:x1], MIDDLES[y0:y1]


def _paint(part, color, cover, alpha, tone=None):
    """
    Lay color (3,), tone (h, w) times as bright, over part (h, 3w); cover (h, w) says how much, and is
    changed. Rows have 3w numbers because numpy is slow on an innermost axis of only 3.
    """
    np.maximum(cover, 0, out=cover)
    np.minimum(cover, 1, out=cover)  # np.clip takes longer than both
    if alpha < 1:
        cover *= np.float32(alpha)
    row = np.empty((cover.shape[1], 3), np.float32)
    row[:] = color
    ink = row.reshape(-1) if tone is None else tone.repeat(3, 1) * row.reshape(-1)
    ink = ink - part
    ink *= cover.repeat(3, 1)
    part += ink


@lru_cache(maxsize=2048)
def _grid(h, w):
    """
    Pixel middles x, y and a 1, (3, h * w), of a part of the picture. A matrix (N, 3) times this gives N
    planes, the values of N linear functions at all pixels.
    """
    return np.stack((np.tile(MIDDLES[:w], h), MIDDLES[:h].repeat(w), np.ones(h * w, np.float32)))


def convex(pixels, points, color, alpha=1.0, light=0.0, rim=0.0, soft=0.0, grow=0.0):
    """
    Fill a convex polygon, points (N, 2) in [0, 1]. This is the fast path: the polygon is where N
    half-planes meet. light: how much brighter the upper left is than the middle; rim: how much darker the
    edge is; soft: width of a blurred edge in picture widths; grow: pixels added all around (closes seams).
    """
    size = pixels.shape[0]
    p = np.multiply(points, size, dtype=np.float32, order="C")
    xs, ys = p.T.tolist()
    soft = max(soft * size, 1.0)
    part, x, y = _around(pixels, xs, ys, .5 * soft + grow)
    if part is None:
        return
    h, w, n = len(y), len(x), len(xs)
    # the corners as x + iy, in the part's own coordinates
    z = p.view(np.complex64)[:, 0] - complex(float(x[0]) - .5, float(y[0]) - .5)
    edge = np.empty_like(z)
    edge[:-1], edge[-1] = z[1:] - z[:-1], z[0] - z[-1]
    across = (n + 1) // 2  # a corner well inside the first edge's half-plane tells which way round we go
    way = (xs[1] - xs[0]) * (ys[across] - ys[0]) > (ys[1] - ys[0]) * (xs[across] - xs[0])
    edge /= np.abs(edge) + np.float32(1e-6) if way else -np.abs(edge) - np.float32(1e-6)
    # distance to an edge is a plane over the picture, and so is the light: one product for all
    planes = np.empty((n + 1, 3), np.float32)
    planes[:n, 0], planes[:n, 1], planes[:n, 2] = -edge.imag, edge.real, (edge * z.conj()).imag
    planes[n] = -light / w, -light / h, 1 + light
    planes = planes @ _grid(h, w)                                         # (N + 1, h * w)
    d = np.minimum.reduce(planes[:n], 0).reshape(h, w)
    tone = None
    if light or rim:
        tone = planes[n].reshape(h, w)
        if rim:
            tone += np.minimum(d * np.float32(rim * 40 / size) - np.float32(rim), 0)
        np.minimum(tone, np.float32(1 / max(color)), out=tone)
    if soft > 1:
        d *= np.float32(1 / soft)
    d += np.float32(.5 + grow)
    _paint(part, color, d, alpha, tone)


def _to_segments(p, q, x, y):
    """
    Squared distance (h, w) from pixels x (w,), y (h,) to the nearest of the segments p-q (N, 2); then dx,
    dy, ex, ey, the vectors from p to the pixels and from p to q, for the caller's own use.
    """
    (ax, ay), (ex, ey) = p.T[:, :, None, None], (q - p).T[:, :, None, None]
    dx, dy = x - ax, y[:, None] - ay                                      # (N, 1, w), (N, h, 1)
    along = (dx * ex + dy * ey) / (ex * ex + ey * ey + np.float32(1e-9))  # (N, h, w)
    np.maximum(along, 0, out=along)
    np.minimum(along, 1, out=along)
    return np.minimum.reduce((dx - along * ex) ** 2 + (dy - along * ey) ** 2, 0), dx, dy, ex, ey


def polygon(pixels, points, color, alpha=1.0):
    """Fill any simple polygon, also a concave one; points (N, 2) in [0, 1]."""
    p = np.multiply(points, pixels.shape[0], dtype=np.float32)
    part, x, y = _around(pixels, *p.T.tolist(), .5)
    if part is None:
        return
    d, dx, dy, ex, ey = _to_segments(p, np.concatenate((p[1:], p[:1])), x, y)
    # a pixel is inside when a line from it to one side meets the outline an odd number of times
    meets = ((dy < 0) != (dy < ey)) & ((dx * ey < dy * ex) != (ey < 0))   # (N, h, w)
    d = np.sqrt(d)
    _paint(part, color, np.where(np.logical_xor.reduce(meets, 0), d, -d) + np.float32(.5), alpha)


def stroke(pixels, points, width, color, alpha=1.0, joined=True):
    """
    A polyline through points (N, 2) in [0, 1] with round ends, width in picture widths. A single point is a
    disc; with joined=False every point is.
    """
    p = np.multiply(points, pixels.shape[0], dtype=np.float32).reshape(-1, 2)
    radius = .5 * width * pixels.shape[0]
    alpha, radius = alpha * min(1., 2 * radius), max(radius, .5)  # at least a pixel wide; fainter if thinner
    part, x, y = _around(pixels, *p.T.tolist(), radius + .5)
    if part is None:
        return
    if joined and len(p) > 1:
        d = _to_segments(p[:-1], p[1:], x, y)[0]
    else:
        d = np.minimum.reduce(((x - p[:, :1]) ** 2)[:, None, :] + ((y - p[:, 1:]) ** 2)[:, :, None], 0)
    _paint(part, color, np.float32(radius + .5) - np.sqrt(d), alpha)


def circle(n=16, start=0.0, end=2 * pi):
    """n points (n, 2) on the unit circle, or on an arc of it with both ends."""
    t = np.linspace(start, end, n, endpoint=end - start < 2 * pi - 1e-6)
    return np.stack((np.cos(t), np.sin(t)), -1)


ROUND, COMPASS = circle(14), circle(28)


def hull(points):
    """
    The corners of the convex hull of points (N, 2), in order: the farthest point in each of 28 directions
    """
    return points[list(dict.fromkeys((COMPASS @ points.T).argmax(1).tolist()))]


# ---------------------------------------------------------------- a pen draws in the own frame of a thing

CORNERS = np.array([(x, y, z) for x in (-.5, .5) for y in (-.5, .5) for z in (-.5, .5)])
FACES = {(0, -1): (0, 1, 3, 2), (0, 1): (4, 5, 7, 6), (1, -1): (0, 1, 5, 4), (1, 1): (2, 3, 7, 6),
         (2, -1): (0, 2, 6, 4), (2, 1): (1, 3, 7, 5)}  # (axis, side): corners of that face


class Pen:
    """
    Draws in a frame of its own. origin (3,) metres; turn (3, 3): its rows are the own x, y, z axes in the
    world.
    """

    def __init__(self, pixels, camera, origin, turn):
        self.pixels, self.camera = pixels, camera
        self.axes = turn @ camera.axes
        self.shift = (origin - camera.target) @ camera.axes
        self.eye = (turn @ (camera.eye - origin)).tolist()
        self.turn = turn

    def see(self, points):
        """own points (N, 3) metres -> (N, 3) column, row, picture widths per metre"""
        return self.camera.picture(np.asarray(points, float) @ self.axes + self.shift)

    def solid(self, points, color, light=.3, rim=.25, **how):
        """the convex hull of own points (N, 3)"""
        convex(self.pixels, hull(self.see(points)[:, :2]), color, light=light, rim=rim, **how)

    def balls(self, balls, color, light=.45, rim=.25):
        """the hull of balls (N, 4): own x, y, z and radius in metres"""
        balls = np.asarray(balls, float)
        at = self.see(balls[:, :3])
        points = at[:, None, :2] + (balls[:, 3] * at[:, 2])[:, None, None] * ROUND  # (N, 14, 2)
        convex(self.pixels, hull(points.reshape(-1, 2)), color, light=light, rim=rim)

    def lathe(self, profile, color, light=.35, rim=.25):
        """the hull of circles around the own z axis; profile: a list of (height, radius)"""
        profile = np.array(profile)[:, None, (1, 1, 0)]
        self.solid((profile * RING).reshape(-1, 3), color, light, rim)

    def disc(self, height, radius, color, light=0.0):
        """a flat round face across the own z axis"""
        convex(self.pixels, self.see(disc(height, radius))[:, :2], color, light=light)

    def line(self, points, width, color, joined=True):
        """a polyline through own points (N, 3), or a dot at each; width in metres"""
        at = self.see(np.reshape(points, (-1, 3)))
        width *= float(at[0, 2])
        if width * self.pixels.shape[0] > .7:  # finer than that is lost on such a small picture
            stroke(self.pixels, at[:, :2], width, color, 1.0, joined)

    def flat(self, points, color):
        """any polygon of own points (N, 3)"""
        polygon(self.pixels, self.see(points)[:, :2], color)

    def box(self, centre, size, color):
        """a box: those of its faces that look at the eye (at most three), each with its own light"""
        at, sun = self.see(CORNERS * size + centre)[:, :2], (self.turn @ SUN).tolist()
        for k in (0, 1, 2):
            off = self.eye[k] - centre[k]
            if abs(off) > size[k] / 2 + .05:  # a face seen edge-on is left out
                side = 1 if off > 0 else -1
                tone = .72 + .42 * max(0, side * sun[k])
                convex(self.pixels, at[list(FACES[k, side])], shade(color, tone), grow=.35)


RING = np.concatenate((ROUND, np.ones((14, 1))), 1)


def disc(height, radius):
    """a circle (14, 3) around the own z axis"""
    return RING * (radius, radius, height)


def upright(axis, yaw):
    """
    (3, 3), its rows are the axes of a frame: z is the unit vector axis, reached from upright by the
    smallest rotation, then the frame is turned by yaw about it
    """
    ax, ay, az = map(float, axis)
    c, s = cos(yaw), sin(yaw)
    x, y = (1, 0, 0), (0, -1, 0)  # a thing on its head: many rotations are equally small, this is one
    if az > -.9999:
        k = 1 / (1 + az)
        x, y = (1 - ax * ax * k, -ax * ay * k, -ax), (-ax * ay * k, 1 - ay * ay * k, -ay)
    return np.array(([c * a + s * b for a, b in zip(x, y)],
                     [c * b - s * a for a, b in zip(x, y)],
                     (ax, ay, az)))


# ---------------------------------------------------------------- things: functions of a pen and a colour
# in each the base of the thing is at the origin

def apple(pen, color):
    pen.balls(((0, .005, .034, .034), (0, -.005, .034, .034), (0, 0, .042, .034)), (.86, .12, .13), light=.55)
    pen.line(((0, 0, .066), (0, -.006, .092)), .007, WOOD)
    pen.solid(((0, 0, .076), (.012, .012, .088), (0, .032, .094), (-.010, .018, .078)), LEAF)


def orange(pen, color):
    pen.balls(((0, 0, .037, .037),), (1., .55, .05), light=.5)
    pen.balls(((-.004, .016, .055, .009),), (1., .72, .35), light=0, rim=0)
    pen.line((0, 0, .072), .011, LEAF)


def can(pen, color):
    faces_up = pen.eye[2] > .10
    pen.lathe(((0, .028), (.006, .031), (.094, .031), (.10, .028)), color)
    pen.disc(.10 if faces_up else 0., .027, (.80, .82, .85) if faces_up else (.45, .47, .50))
    if faces_up:
        pen.disc(.10, .019, (.64, .67, .71))
        pen.line(((0, -.006, .10), (0, .008, .10)), .008, (.95, .95, .96))


def cup(pen, color):
    handle = [(0, .030, .066), (0, .052, .062), (0, .054, .034), (0, .029, .022)]
    behind = pen.eye[1] < 0 and pen.eye[2] < 1.2 * abs(pen.eye[1])
    if behind:
        pen.line(handle, .011, shade(color, .8))
    pen.lathe(((0, .026), (.08, .036)), color)
    if not behind:
        pen.line(handle, .011, shade(color, .8))
    if pen.eye[2] > .08:
        pen.disc(.08, .036, shade(color, 1.35))
        pen.disc(.08, .030, shade(color, .38), light=-.5)
    else:
        pen.disc(0, .026, shade(color, .7))


def bowl(pen, color):
    pen.lathe(((0, .030), (.012, .045), (.045, .060)), shade(color, .85))
    if pen.eye[2] > .045:
        pen.disc(.045, .060, shade(color, 1.35))
        pen.disc(.045, .053, shade(color, .62), light=-.35)
        pen.disc(.012, .032, shade(color, .75))
    else:
        pen.disc(0, .030, shade(color, .6))


def block(pen, color):
    pen.box((0, 0, .03), (.06, .06, .06), color)


def bottle(pen, color):
    cap = (.95, .95, .95) if color != COLORS["white"] else COLORS["blue"]
    parts = [(((0, .025), (.006, .028), (.075, .028), (.10, .013)), color),
             (((.095, .012), (.125, .012)), color),
             (((.118, .0145), (.142, .0145)), cap)]
    up = pen.eye[2] > .12
    for profile, c in parts if up else parts[::-1]:
        pen.lathe(profile, c)
    label = shade(color, 1.25) if sum(color) < 2.6 else (.7, .8, .95)
    pen.lathe(((.034, .0285), (.056, .0285)), label, rim=0)
    if not up:
        pen.disc(0, .025, shade(color, .7))


def sponge(pen, color):
    pen.solid(CORNERS * (.062, .102, .010) + (0, 0, .005), (.13, .50, .22), rim=0)
    pen.box((0, 0, .020), (.06, .10, .020), (1., .85, .25))
    if pen.eye[2] > .03:
        pores = ((-.014, -.03, .03), (.012, -.012, .03), (-.010, .012, .03), (.014, .033, .03))
        pen.line(pores, .009, (.80, .60, .08), joined=False)


def bag(pen, color):
    pen.solid(((.006, .045, 0), (-.006, .045, 0), (.006, -.045, 0), (-.006, -.045, 0),
               (.026, .034, .035), (-.026, .034, .035), (.026, -.034, .035), (-.026, -.034, .035),
               (.022, .034, .065), (-.022, .034, .065), (.022, -.034, .065), (-.022, -.034, .065),
               (0, .045, .10), (0, -.045, .10)), color)
    pen.solid(((0, .045, .086), (0, .045, .10), (0, -.045, .10), (0, -.045, .086)), shade(color, 1.45), rim=0)
    side = 1 if pen.eye[0] > 0 else -1
    mark = COLORS["yellow"] if color != COLORS["yellow"] else COLORS["red"]
    ring = np.concatenate((np.full((14, 1), side * .028), ROUND * (.024, .019) + (0, .048)), 1)
    pen.solid(ring, mark, rim=0)


def marker(pen, color):
    tube = (ROUND * .0115)[:, (0, 0, 1)] * (1, 0, 1) + (0, 0, .0115)  # a ring around the own y axis
    pen.line(((0, -.060, .0115), (0, -.050, .0115)), .009, INK)
    band = COLORS["white"] if color != COLORS["white"] else (.60, .66, .72)
    for ends, c in (((-.050, .060), color), ((-.034, .012), band)):
        pen.solid(np.concatenate([tube + (0, y, 0) for y in ends]), c)


def _ribbon(spine, widths):
    """the outline (2N, 2) of a band around spine (N, 2) with the given full widths (N,)"""
    spine = np.asarray(spine, float)
    side = np.gradient(spine, axis=0)[:, ::-1] * (1, -1)
    side *= (np.asarray(widths) / 2 / np.hypot(*side.T))[:, None]
    return np.concatenate((spine + side, (spine - side)[::-1]))


def _level(points, z):
    """points (N, 2) -> (N, 3), all at height z"""
    return np.concatenate((points, np.full((len(points), 1), z)), 1)


BANANA = circle(9, .25, pi - .25)[:, ::-1] * (.05, .058) - (.028, 0)
BANANA_EDGE = _level(_ribbon(BANANA, (.006, .022, .030, .034, .035, .034, .030, .022, .009)), .016)
BANANA_SIDE = _ribbon(BANANA - (.007, 0), (.003, .010, .014, .015, .015, .015, .014, .010, .004))
BANANA_SIDE = _level(BANANA_SIDE, .018)


def banana(pen, color):
    pen.flat(BANANA_EDGE, (.99, .86, .22))
    pen.flat(BANANA_SIDE, (.88, .70, .10))
    pen.line(_level(BANANA[-1:], .016), .013, (.38, .26, .10))
    pen.line(_level(BANANA[:1], .016), .009, (.38, .26, .10))


def strawberry(pen, color):
    pen.balls(((0, .010, .026, .026), (0, -.034, .014, .009)), (.92, .10, .20))
    seeds = ((.0, -.022, .04), (-.012, -.004, .05), (.012, -.004, .05),
             (0, .010, .052), (-.014, .018, .05), (.014, .018, .05))
    pen.line(seeds, .0055, (1., .88, .50), joined=False)
    leaves = ((-.018, .022, .046), (0, .034, .030), (0, .046, .046), (0, .034, .030), (.018, .022, .046))
    pen.line(leaves, .010, LEAF)


def carrot(pen, color):
    root = (0, .042, .018)
    pen.line(((-.016, .078, .022), root, (0, .078, .022), root, (.016, .078, .022)), .010, LEAF)
    pen.balls(((0, .034, .019, .019), (0, -.066, .010, .004)), (1., .47, .08))
    for y, r in ((.018, .009), (-.008, .007), (-.032, .004)):
        pen.line(((-r, y, .034), (r * .3, y, .036)), .003, (.80, .33, .03))


def eggplant(pen, color):
    pen.balls(((0, -.030, .029, .029), (0, .034, .018, .016)), (.33, .11, .38), light=.9)
    pen.balls(((0, .040, .019, .015), (0, .048, .019, .010)), LEAF)
    pen.line(((0, .052, .019), (.003, .070, .021)), .009, (.30, .48, .16))


def pear(pen, color):
    pen.line(((0, .052, .022), (-.006, .070, .026)), .007, WOOD)
    pen.balls(((0, -.018, .032, .032), (0, .042, .021, .014)), (.76, .84, .22))
    pen.solid(((0, .052, .026), (-.012, .058, .036), (-.030, .042, .040), (-.016, .040, .036)), LEAF, rim=0)


def mushroom(pen, color):
    pen.lathe(((0, .019), (.045, .015)), (.95, .91, .82))
    pen.lathe(((.038, .036), (.046, .041), (.062, .033), (.073, .016)), (.80, .22, .16))
    dots = ((-.026, .012, .064), (-.030, -.018, .056), (.004, -.006, .076), (.012, .028, .060))
    pen.line(dots, .013, COLORS["white"], joined=False)


def duck(pen, color):
    yellow = (1., .84, .10)
    pen.balls(((0, .018, .028, .028), (0, -.010, .026, .026), (0, -.052, .046, .004)), yellow)
    pen.balls(((0, .026, .066, .023),), yellow)
    pen.balls(((0, .046, .060, .008), (0, .058, .058, .006)), (1., .45, .05), rim=0)
    pen.line((-.016, .032, .076), .009, INK)
    pen.line(((-.026, .012, .032), (-.026, -.010, .028), (-.02, -.024, .036)), .005, (.86, .64, .05))


def ball(pen, color):
    centre, r = (0, 0, .04), .04
    pen.balls(((*centre, r),), COLORS["white"])
    eye = np.asarray(pen.eye) - centre
    eye /= np.linalg.norm(eye)
    for k, c in enumerate(("red", "blue", "yellow")):
        a = 2 * pi / 3 * k
        up = np.linspace(.12, pi - .12, 5)
        gore = np.concatenate([np.stack((np.sin(t) * cos(b), np.sin(t) * sin(b), np.cos(t)), -1)
                               for t, b in ((up, a), (up[::-1], a + pi / 3))])  # (10, 3)
        gore -= np.minimum(gore @ eye, 0)[:, None] * eye  # points behind the ball are pushed to its rim
        gore /= np.linalg.norm(gore, axis=1)[:, None]
        pen.flat(gore * (r * .97) + centre, COLORS[c])


def hammer(pen, color):
    pen.line(((0, -.065, .012), (0, .045, .012)), .018, shade(WOOD, .7))
    pen.line(((-.002, -.065, .016), (-.002, .045, .016)), .010, WOOD)
    claw = ((.02, .055, .02), (.02, .035, .02), (0, .055, .02), (0, .035, .02),
            (.045, .050, .012), (.045, .042, .012))
    pen.solid(claw, shade(STEEL, .8), rim=0)
    pen.solid(CORNERS * (.036, .026, .028) + (-.018, .045, .014), STEEL, light=.5)


def phone(pen, color):
    pen.box((0, 0, .005), (.058, .105, .010), (.16, .17, .20))
    if pen.eye[2] > .01:
        screen = [(x, y, .01) for x in (-.024, .024) for y in (-.040, .040)]
        pen.solid(screen, (.45, .80, .98), light=.4, rim=0)
        pen.line((0, -.046, .01), .008, (.75, .78, .82))


# noun: (draw function, (half width along x, half length along y, height) in metres)
THINGS = dict(
    apple=(apple, (.037, .037, .070)), orange=(orange, (.037, .037, .074)),
    can=(can, (.031, .031, .100)), cup=(cup, (.036, .036, .080)),
    bowl=(bowl, (.060, .060, .045)), block=(block, (.034, .034, .060)),
    bottle=(bottle, (.028, .028, .142)), sponge=(sponge, (.034, .055, .030)),
    bag=(bag, (.028, .045, .100)), marker=(marker, (.012, .060, .022)),
    banana=(banana, (.028, .058, .032)), strawberry=(strawberry, (.026, .040, .052)),
    carrot=(carrot, (.019, .064, .036)), eggplant=(eggplant, (.029, .058, .058)),
    pear=(pear, (.032, .052, .060)), mushroom=(mushroom, (.040, .040, .074)),
    duck=(duck, (.028, .044, .088)), ball=(ball, (.040, .040, .080)),
    hammer=(hammer, (.030, .062, .026)), phone=(phone, (.030, .054, .010)))


FOOTPRINT = np.concatenate((disc(0, 1)[::2], disc(1, .8)[::2]))


def draw_shadow(pixels, camera, noun, position, turn):
    """
    A soft dark hull on the table: the rings at the base and the top of the thing, as the sun throws them.
    The higher the thing is held, the fainter the shadow.
    """
    wide, long, tall = THINGS[noun][1]
    base = FOOTPRINT * (wide, long, tall)
    points = base @ turn + position                                  # (14, 3)
    points[:, 0] += .10 * points[:, 2]
    points[:, 1] -= .25 * points[:, 2]
    high = max(0., points[:, 2].min())
    points[:, 2] = 0
    at = camera.project(points)[:, :2]
    convex(pixels, hull(at), (.05, .04, .08), alpha=.42 / (1 + 6 * high), soft=.03)


def draw_thing(pixels, camera, noun, color, position, axis=(0, 0, 1), yaw=0.0, shadow=True):
    """
    Draw a thing. position (3,) metres: the middle of its base; axis (3,): its own up, a unit vector; yaw:
    radians about that axis; color: an rgb tuple for what comes in colours, else None. Pixels must be
    contiguous.
    """
    position, turn = np.asarray(position, float), upright(axis, yaw)
    if shadow:
        draw_shadow(pixels, camera, noun, position, turn)
    THINGS[noun][0](Pen(pixels, camera, position, turn), color)


# ---------------------------------------------------------------- flat cards

def arc(x, y, rx, ry, start=0.0, end=360.0, n=14):
    """n points (n, 2) of an ellipse around x, y, from start to end in degrees."""
    return circle(n, radians(start), radians(end)) * (rx, ry) + (x, y)


def line(color, width, *points):
    return color, width, np.concatenate([np.reshape(p, (-1, 2)) for p in points])


def fill(color, *points):
    return line(color, None, *points)


def ink(*points):
    return line(INK, .13, *points)


# name -> shapes (color, stroke width or None for a filled one, points (N, 2)); unit square, x right, y up
CARDS = {
    "0": [ink(arc(.5, .5, .19, .29, 0, 360, 20), (.69, .5))],
    "1": [ink((.36, .66), (.53, .80), (.53, .20)), ink((.36, .20), (.70, .20))],
    "2": [ink(arc(.5, .62, .19, .18, 170, -35), (.32, .20), (.70, .20))],
    "3": [ink(arc(.48, .64, .18, .155, 150, -90), arc(.48, .345, .20, .155, 80, -150))],
    "4": [ink((.58, .20), (.58, .80), (.28, .40), (.74, .40))],
    "5": [ink((.67, .80), (.36, .80), (.33, .53), arc(.48, .39, .20, .19, 110, -145))],
    "6": [ink((.60, .80), arc(.62, .40, .31, .36, 130, 180, 6), arc(.5, .37, .19, .18, 180, 520))],
    "7": [ink((.30, .80), (.70, .80), (.44, .20))],
    "8": [ink(arc(.5, .655, .155, .145), (.655, .655)), ink(arc(.5, .355, .19, .16), (.69, .355))],
    "9": [ink((.40, .20), arc(.38, .60, .31, .36, -50, 0, 6), arc(.5, .63, .19, .18, 0, 340))],
    "A": [ink((.26, .20), (.5, .80), (.74, .20)), ink((.36, .40), (.64, .40))],
    "B": [ink((.32, .20), (.32, .80), arc(.50, .66, .17, .14, 90, -90), (.32, .52),
              arc(.52, .36, .19, .16, 90, -90), (.32, .20))],
    "C": [ink(arc(.53, .5, .25, .30, 50, 310, 18))],
    "D": [ink((.32, .20), (.32, .80), arc(.44, .5, .27, .30, 90, -90), (.32, .20))],
    "E": [ink((.69, .80), (.34, .80), (.34, .20), (.69, .20)), ink((.34, .5), (.62, .5))],
    "F": [ink((.69, .80), (.34, .80), (.34, .18)), ink((.34, .5), (.62, .5))],
    "X": [ink((.28, .20), (.72, .80)), ink((.28, .80), (.72, .20))],
    "Y": [ink((.27, .80), (.5, .48), (.73, .80)), ink((.5, .48), (.5, .18))],
    "heart": [fill((.90, .10, .25), arc(.34, .62, .17, .17, 180, 20, 9),
                   arc(.66, .62, .17, .17, 160, 0, 9), (.79, .48), (.5, .17), (.21, .48))],
    "star": [fill((1., .72, .0), *[(.5 + r * sin(k * pi / 5), .48 + r * cos(k * pi / 5))
                                   for k, r in enumerate((.38, .16) * 5)])],
    "arrow": [fill((.10, .35, .85), (.5, .86), (.80, .50), (.61, .50), (.61, .14), (.39, .14), (.39, .50),
                   (.20, .50))],
    "moon": [fill((.25, .28, .62), arc(.52, .5, .33, .35, 60, 300, 16),
                  arc(.66, .5, .26, .27, 250, 110, 12))],
    "sun": [*[line((1., .60, .05), .06, (.5 + .38 * cos(a), .5 + .38 * sin(a)),
                   (.5 - .38 * cos(a), .5 - .38 * sin(a))) for a in (0, pi / 4, pi / 2, 3 * pi / 4)],
            fill((1., .76, .10), arc(.5, .5, .22, .22, n=18))],
    "tree": [fill(WOOD, (.43, .12), (.57, .12), (.57, .34), (.43, .34)),
             fill((.10, .50, .22), (.5, .90), (.68, .62), (.60, .62), (.80, .30), (.20, .30), (.40, .62),
                  (.32, .62))],
    "flower": [line((.15, .55, .20), .07, (.5, .42), (.5, .10)),
               *[line((.93, .35, .70), .21, (.5 + .17 * sin(a), .62 + .17 * cos(a)))
                 for a in np.arange(5) * 2 * pi / 5],
               line((1., .80, .10), .17, (.5, .62))],
    "house": [fill((.95, .75, .45), (.25, .15), (.75, .15), (.75, .52), (.25, .52)),
              fill((.80, .18, .15), (.14, .50), (.5, .86), (.86, .50)),
              fill((.40, .22, .10), (.43, .15), (.57, .15), (.57, .38), (.43, .38))],
    "cross": [fill((.10, .60, .30), *[(.5 + x, .5 + y) for x, y in (
        (-.11, .34), (.11, .34), (.11, .11), (.34, .11), (.34, -.11), (.11, -.11),
        (.11, -.34), (-.11, -.34), (-.11, -.11), (-.34, -.11), (-.34, .11), (-.11, .11))])],
    "dog": [fill((.78, .55, .30), arc(.5, .50, .27, .31, n=18)),
            line((.42, .24, .10), .17, (.24, .70), (.19, .40)),
            line((.42, .24, .10), .17, (.76, .70), (.81, .40)), fill((.97, .90, .80), arc(.5, .36, .17, .15)),
            line(INK, .08, (.39, .60)), line(INK, .08, (.61, .60)), line(INK, .11, (.47, .42), (.53, .42)),
            line((.93, .40, .45), .10, (.5, .28), (.5, .20))],
    "cat": [fill((.58, .58, .64), (.17, .88), (.40, .72), (.60, .72), (.83, .88), (.83, .45),
                 arc(.5, .44, .33, .30, 0, -180), (.17, .45)),
            fill((.95, .62, .70), (.23, .79), (.35, .71), (.24, .64)),
            fill((.95, .62, .70), (.77, .79), (.65, .71), (.76, .64)),
            line((.30, .85, .35), .11, (.36, .52)), line((.30, .85, .35), .11, (.64, .52)),
            line(INK, .05, (.36, .55), (.36, .49)), line(INK, .05, (.64, .55), (.64, .49)),
            fill((.95, .45, .55), (.44, .40), (.56, .40), (.5, .33)),
            *[line(INK, .025, (.5 + s * .12, .34), (.5 + s * .42, .34 + y))
              for s in (-1, 1) for y in (.05, -.05)]],
    "fish": [fill((.98, .50, .10), (.10, .50), arc(.42, .5, .30, .22, 160, 20, 9), (.90, .74), (.82, .5),
                  (.90, .26), arc(.42, .5, .30, .22, -20, -160, 9)),
             line(COLORS["white"], .13, (.27, .55)), line(INK, .07, (.26, .55)),
             line((1., .80, .25), .05, arc(.36, .5, .10, .17, 60, -60, 6))],
    "bird": [fill((.20, .55, .90), arc(.42, .46, .26, .24, 80, 250), (.62, .30), (.92, .46), (.72, .50),
                  (.60, .62)),
             line((.20, .55, .90), .32, (.34, .68)), fill((1., .65, .05), (.06, .66), (.20, .75), (.20, .60)),
             line(INK, .07, (.31, .72)),
             fill((.10, .35, .70), (.40, .52), (.74, .44), (.50, .32)),
             line((1., .55, .05), .05, (.42, .24), (.42, .12)),
             line((1., .55, .05), .05, (.54, .25), (.54, .12))],
    "elephant": [line((.50, .56, .68), .38, (.26, .56)), line((.50, .56, .68), .38, (.74, .56)),
                 line((.66, .71, .82), .46, (.5, .58)),
                 line((.66, .71, .82), .16, (.5, .45), (.5, .24), (.58, .16), (.68, .20)),
                 line(INK, .07, (.40, .62)), line(INK, .07, (.60, .62)),
                 line(COLORS["white"], .06, (.36, .38), (.32, .26)),
                 line(COLORS["white"], .06, (.64, .38), (.66, .32))],
}


def draw_card(pixels, camera, name, position, yaw=0.0, size=0.09):
    """
    A flat card on the table. name: one of CARDS, or a mat such as "red mat"; position (3,): its middle;
    size: its side in metres.
    """
    color, _, mat = name.partition(" ")
    if mat:
        inner = fill(shade(COLORS[color], 1.25), (.2, .2), (.8, .2), (.8, .8), (.2, .8))
        return draw_flat(pixels, camera, [inner], position, yaw, size, paper=COLORS[color])
    draw_flat(pixels, camera, CARDS[name], position, yaw, size)


def draw_flat(pixels, camera, shapes, position, yaw, size, paper=(.99, .99, .97)):
    """
    Draw shapes, given in the unit square, on a square of paper with rounded corners that lies on the table.
    """
    c, s = size * cos(yaw), size * sin(yaw)
    turn = np.array(((s, -c, 0), (c, s, 0)))                            # figure x, y -> world
    middle = np.asarray(position, float) + (0, 0, .001)

    def place(points):
        return camera.project((points - .5) @ turn + middle)[:, :2]
    corners = np.array(((.08, .08), (.92, .08), (.92, .92), (.08, .92)))
    scale = size * float(camera.project(middle)[2])
    around = place(np.concatenate((corners, corners[:1])))
    stroke(pixels, around + (.004, .006), .17 * scale, (.1, .08, .1), alpha=.3)
    stroke(pixels, around, .17 * scale, shade(paper, .86))
    convex(pixels, place(corners), paper, grow=.06 * scale * pixels.shape[0])
    ends = np.cumsum([len(p) for _, _, p in shapes])       # all points are projected at once, which is faster
    every = np.split(place(np.concatenate([p for _, _, p in shapes])), ends[:-1])
    for (color, width, _), points in zip(shapes, every):
        if width:
            stroke(pixels, points, .92 * width * scale, color)
        else:
            polygon(pixels, points, color)


HAIR = dict(black=(.08, .08, .10), brown=(.45, .25, .10), blond=(.98, .80, .30), white=(.93, .93, .95),
            red=(.82, .28, .08))


def draw_face(pixels, camera, face, position, size=0.10):
    """
    A card with a friendly face. face: {"hair": one of HAIR, "glasses": bool, "hat": bool, "beard": bool}.
    Example: {"hair": "white", "glasses": True, "hat": False, "beard": False}
    """
    hair, skin = HAIR[face["hair"]], (.96, .76, .62)
    shapes = [fill(hair, arc(.5, .60, .36, .34, 180, 0), (.87, .30), (.13, .30)),
              fill(skin, arc(.5, .46, .27, .33, n=20))]
    if face["beard"]:
        shapes += [fill(hair, (.23, .50), (.34, .38), (.5, .42), (.66, .38), (.77, .50),
                        arc(.5, .32, .28, .24, 0, -180))]
    shapes += [line((.80, .20, .22), .055, arc(.5, .34, .11, .08, 200, 340, 6))]
    if not face["hat"]:
        shapes += [fill(hair, arc(.5, .62, .31, .27, 175, 5), (.62, .70), (.40, .62))]
    shapes += [line(INK, .07, (.39, .52)), line(INK, .07, (.61, .52))]
    if face["glasses"]:
        for x in (.37, .63):
            shapes += [line((.70, .90, 1.), .20, (x, .52)),
                       line(INK, .055, arc(x, .52, .11, .10), (x + .11, .52)), line(INK, .07, (x, .52))]
        shapes += [line(INK, .05, (.46, .54), (.54, .54))]
    if face["hat"]:
        shapes += [fill((.10, .35, .80), (.24, .70), (.28, .97), (.72, .97), (.76, .70)),
                   line((.06, .22, .58), .10, (.10, .71), (.90, .71)),
                   line(COLORS["yellow"], .06, (.27, .79), (.73, .79))]
    draw_flat(pixels, camera, shapes, position, 0.0, size, paper=(.72, .90, .86))


# ---------------------------------------------------------------- gripper

def rotation(roll, pitch, yaw):
    """
    (3, 3), its rows are the axes of a frame that is turned by roll about x, then pitch about y, then yaw
    about z
    """
    (cr, cp, cy), (sr, sp, sy) = np.cos((roll, pitch, yaw)).tolist(), np.sin((roll, pitch, yaw)).tolist()
    return np.array(((cy * cp, sy * cp, -sp), (cy * sp * sr - sy * cr, sy * sp * sr + cy * cr, cp * sr),
                     (cy * sp * cr + sy * sr, sy * sp * cr - cy * sr, cp * cr)))


def draw_gripper(pixels, camera, position, roll, pitch, yaw, opening, touch=False, part="both"):
    """
    The hand. position (3,): the point between the finger tips; roll, pitch, yaw in radians; opening: from 1
    (9 cm apart) to 0 (closed); touch: the tips feel something between them, and light up; part: draw "back"
    before the thing that it holds and "front" after it, or "both" at once. A cross marks the table below.
    """
    position = np.asarray(position, float)
    if part != "front":
        cross = ((-.03, 0, 0), (.03, 0, 0), (0, 0, 0), (0, -.03, 0), (0, .03, 0), (0, 0, 0),
                 (0, 0, position[2]))
        stroke(pixels, camera.project(position * (1, 1, 0) + cross)[:, :2], .018, PINK)
    pen = Pen(pixels, camera, position, rotation(roll, pitch, yaw))
    gap = .011 + .045 * opening
    # middle, size, color of each box
    pieces = [((0, 0, .134), (.034, .034, .05), STEEL), ((0, 0, .100), (.040, .13, .026), IRON)]
    for y in (-gap, gap):
        pieces += [((0, y, .060), (.020, .014, .064), IRON),
                   ((0, y, .018), (.022, .016, .038), CYAN if touch else PINK)]
    middles, sizes = np.array([p[0] for p in pieces]), np.array([p[1] for p in pieces])
    corners = pen.see((CORNERS * sizes[:, None] + middles[:, None]).reshape(-1, 3)).reshape(-1, 8, 3)
    # a piece that is nearer to the eye than the point between the tips is in front of the held thing
    near = (middles @ pen.eye).tolist()
    near[3], near[5] = near[2] + 1e-9, near[4] + 1e-9       # a tip is drawn over its finger
    for k in sorted(range(6), key=near.__getitem__):
        if part == "both" or (near[k] > -.001) == (part == "front"):
            convex(pixels, hull(corners[k, :, :2]), pieces[k][2], light=.4, rim=.25)


# ---------------------------------------------------------------- drawer

DRAWER = (.70, .50, .32)


def draw_drawer(pixels, camera, opening, y=0.0, part="both"):
    """
    A cabinet whose front stands at x = .17, with its drawer pulled out by opening, 0 to .12 metres. Things
    in the drawer are drawn between part="back" and part="front" (the front board of the drawer with its
    handle).
    """
    pen = Pen(pixels, camera, np.array((.17 - opening, y, 0)), np.eye(3))  # moves with the drawer
    if part != "front":
        fixed = Pen(pixels, camera, np.array((.17, y, 0)), np.eye(3))
        under = [(x, s * .12, 0) for x in (-opening, .13) for s in (-1, 1)]
        fixed.solid(under, (.05, .04, .08), 0, 0, alpha=.35, soft=.03)
        fixed.box((.06, 0, .035), (.12, .20, .07), shade(DRAWER, .9))
        hole = [(0, s * .092, z) for s, z in ((-1, .008), (1, .008), (1, .062), (-1, .062))]
        convex(pixels, fixed.see(hole)[:, :2], (.16, .10, .07))
        if opening > .012:
            for s in (-1, 1):
                pen.box((opening / 2, s * .088, .032), (opening, .008, .044), DRAWER)
            floor = [(x, s * .084, .012) for x, s in ((0, -1), (0, 1), (opening, 1), (opening, -1))]
            convex(pixels, pen.see(floor)[:, :2], (.42, .28, .17), light=-.3)
    if part != "back":
        pen.box((-.002, 0, .035), (.012, .184, .056), shade(DRAWER, 1.15))
        for s in (-1, 1):
            pen.line(((-.004, s * .03, .04), (-.015, s * .03, .04)), .008, shade(STEEL, .7))
        pen.line(((-.015, -.034, .04), (-.015, .034, .04)), .014, shade(STEEL, .6))
        pen.line(((-.017, -.032, .043), (-.017, .032, .043)), .006, shade(STEEL, 1.5))


# ---------------------------------------------------------------- background

@dataclass(frozen=True)
class Style:
    """
    table, floor: rgb; texture: plain, wood, stripes, checks, speckles or cloth; light: brightness; clutter:
    a seed for small shapes near the edges that have no part in any task, or None.
    """
    table: tuple = (.80, .72, .60)
    floor: tuple = (.42, .45, .50)
    texture: str = "plain"
    light: float = 1.0
    clutter: int | None = None


TABLE = np.array(((-.32, .36), (-.32, -.36), (.33, -.36), (.33, .36)))  # corners x, y


def texture(name, x, y):
    """how bright the table is at x, y (both (S, S), metres): about 1, with small differences"""
    if name == "wood":
        plank = np.floor(x / .085)
        grain = np.sin(260 * x + 3 * np.sin(9 * y + 5 * plank) + 2 * plank) * np.sin(31 * x + 7 * plank)
        return 1 + .035 * grain + .05 * np.sin(2.4 * plank)
    if name == "stripes":
        return 1 + .07 * np.clip(6 * np.sin(y * 2 * pi / .08), -1, 1)
    if name == "checks":
        return 1 + .06 * np.clip(5 * np.sin(x * 2 * pi / .12) * np.sin(y * 2 * pi / .12), -1, 1)
    if name == "speckles":
        # one speck in each square of 3 cm, at a place that looks random
        i, j = np.floor(x / .03), np.floor(y / .03)
        a, b, k = (np.modf(np.sin(i * p + j * q) * 4375.85)[0]
                   for p, q in ((12.9, 78.2), (39.3, 11.1), (73.1, 52.2)))
        distance = np.hypot(x / .03 - i - .5 - .3 * a, y / .03 - j - .5 - .3 * b)
        return 1 + .3 * k * np.clip(1.6 - distance / .11, 0, 1)
    if name == "cloth":
        return 1 + .045 * np.sin(x * 2 * pi / .03) + .045 * np.sin(y * 2 * pi / .03)
    return np.ones_like(x)


def background(size, camera, style=Style()):
    """
    Floor and table as the camera sees them: pixels (size, size, 3) float32, the same for the same style.
    """
    middles = (np.arange(size) + .5) / size
    rows, columns = np.meshgrid(middles, middles, indexing="ij")
    x, y = camera.on_table(columns, rows)                          # (S, S) metres
    pixels = np.ones((size, size, 3), np.float32) * np.float32(style.floor)
    pixels = pixels * (.92 - .15 * rows[..., None]).astype(np.float32)
    top = np.concatenate((TABLE, np.zeros((4, 1))), 1)
    corners = camera.project(np.concatenate((top, top - (0, 0, .03))))[:, :2]
    convex(pixels, hull(corners), shade(style.table, .55))         # the edge of the table
    mask = np.zeros_like(pixels)
    convex(mask, corners[:4], (1, 1, 1))
    tone = texture(style.texture, x, y) * (1 + .10 * (y + x))      # a little lighter towards the lamp
    pixels += (tone[..., None] * style.table - pixels) * mask
    if style.clutter is not None:
        rng = np.random.default_rng(style.clutter)
        for _ in range(7):
            side, along = rng.integers(3), rng.uniform(-.24, .24)
            spot = ((.28, along), (along, .27), (along, -.27))[side]
            color, n = rng.uniform(.25, .9, 3), rng.integers(3, 7)
            r, a = rng.uniform(.012, .03), rng.uniform(0, 6)
            at = camera.project(_level(circle(n, a, a + 2 * pi) * r + spot, .002))[:, :2]
            convex(pixels, at + (.004, .006), (.1, .08, .1), alpha=.25)
            convex(pixels, at, color, light=.2)
    return np.clip(pixels * style.light, 0, 1).astype(np.float32)
