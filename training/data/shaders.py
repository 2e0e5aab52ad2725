"""GLSL sources of the renderer: surfaces with one sun, lamps and a shadow map; sky; shadow casters and depth previews.

A surface writes linear RGB with its class id as alpha (a half float holds integers up to 2048), and its z-depth.
"""

ITEM_BLOCK = """
#version 330
layout(std140) uniform Item {
    mat4 world_T_mesh;
    mat3 normal_matrix;
    vec3 mesh_scale;
    float tiles_per_m;
    vec3 tint;
    float gloss, glow, alpha_cutoff, class_id;
};
"""

VERTEX = (
    ITEM_BLOCK
    + """
uniform mat4 camera_T_world, clip_T_camera, light_T_world;
in vec3 in_position, in_normal;
in vec2 in_uv;
out vec3 world, normal, local, local_normal, light_clip;
out vec2 uv;
out float z;
void main() {
    vec4 p = world_T_mesh * vec4(in_position, 1.0);
    vec4 c = camera_T_world * p;
    world = p.xyz;
    normal = normal_matrix * in_normal;
    local = in_position * mesh_scale;
    local_normal = in_normal / mesh_scale;
    light_clip = (light_T_world * p).xyz;
    uv = in_uv;
    z = c.z;
    gl_Position = clip_T_camera * c;
}
"""
)

FRAGMENT = (
    ITEM_BLOCK
    + """
uniform sampler2D albedo, shadow_map;
uniform vec3 eye, sun_direction, sun_rgb, ambient_rgb;
uniform vec3 lamp_position[4], lamp_rgb[4];
uniform int lamp_count;
in vec3 world, normal, local, local_normal, light_clip;
in vec2 uv;
in float z;
layout(location = 0) out vec4 rgb;
layout(location = 1) out float depth;

float sharp(float x) {  // x to the power of 40
    float x2 = x * x, x4 = x2 * x2, x8 = x4 * x4, x16 = x8 * x8;
    return x16 * x16 * x8;
}

float sunlight(vec3 n) {
    vec3 s = light_clip * 0.5 + 0.5;
    if (any(lessThan(s, vec3(0.0))) || any(greaterThan(s, vec3(1.0)))) return 1.0;
    float bias = 0.0006 + 0.002 * (1.0 - abs(dot(n, sun_direction)));
    float lit = 0.0;
    const float t = 1.0 / 1024.0;
    lit += step(s.z - bias, texture(shadow_map, s.xy + vec2(-t, -0.5 * t)).r);
    lit += step(s.z - bias, texture(shadow_map, s.xy + vec2(0.5 * t, -t)).r);
    lit += step(s.z - bias, texture(shadow_map, s.xy + vec2(t, 0.5 * t)).r);
    lit += step(s.z - bias, texture(shadow_map, s.xy + vec2(-0.5 * t, t)).r);
    return lit * 0.25;
}

void main() {
    vec2 at = uv;
    if (tiles_per_m > 0.0) {
        vec3 a = abs(local_normal);
        at = (a.x > a.y && a.x > a.z ? local.yz : (a.y > a.z ? local.xz : local.xy)) * tiles_per_m;
    }
    vec4 texel = texture(albedo, at);
    if (texel.a < alpha_cutoff) discard;
    vec3 base = pow(texel.rgb, vec3(2.2)) * tint;
    vec3 to_eye = normalize(eye - world);
    vec3 n = normalize(normal);
    if (dot(n, to_eye) < 0.0) n = -n;
    float sun = max(dot(n, sun_direction), 0.0);
    if (sun > 0.0) sun *= sunlight(n);
    vec3 light = ambient_rgb * (0.75 + 0.25 * n.z) + sun_rgb * sun;
    float shine = sun * sharp(max(dot(n, normalize(to_eye + sun_direction)), 0.0));
    for (int i = 0; i < lamp_count; ++i) {
        vec3 d = lamp_position[i] - world;
        float r2 = dot(d, d) + 0.05;
        vec3 l = d * inversesqrt(r2);
        float k = max(dot(n, l), 0.0) / r2;
        light += lamp_rgb[i] * k;
        shine += k * sharp(max(dot(n, normalize(to_eye + l)), 0.0));
    }
    rgb = vec4(base * (light + glow) + gloss * shine, class_id);
    depth = z;
}
"""
)

SKY_VERTEX = """
#version 330
uniform vec2 ray_scale, ray_offset;
out vec3 ray;
void main() {
    vec2 p = vec2(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0);
    ray = vec3(p * ray_scale + ray_offset, 1.0);
    gl_Position = vec4(p, 1.0, 1.0);
}
"""

SKY_FRAGMENT = """
#version 330
uniform sampler2D panorama;
uniform mat3 world_R_camera;
uniform float gain, sky_yaw;
in vec3 ray;
layout(location = 0) out vec4 rgb;
layout(location = 1) out float depth;
void main() {
    vec3 d = normalize(world_R_camera * ray);
    vec2 at = vec2((atan(d.y, d.x) + sky_yaw) / 6.2831853, acos(clamp(d.z, -1.0, 1.0)) / 3.1415927);
    rgb = vec4(pow(textureLod(panorama, at, 0.0).rgb, vec3(2.2)) * gain, 0.0);
    depth = 0.0;
}
"""

SHADOW_VERTEX = """
#version 330
uniform mat4 clip_T_mesh;
in vec3 in_position;
in vec2 in_uv;
out vec2 uv;
void main() {
    uv = in_uv;
    gl_Position = clip_T_mesh * vec4(in_position, 1.0);
}
"""

SHADOW_FRAGMENT = """
#version 330
uniform sampler2D albedo;
uniform float alpha_cutoff;
in vec2 uv;
void main() {
    if (texture(albedo, uv).a < alpha_cutoff) discard;
}
"""
