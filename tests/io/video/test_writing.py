"""Changing the frames of videos: times, tracks, tags, bits and metadata stay."""

from __future__ import annotations

import errno
import io
import weakref
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import HEIGHT, WIDTH, add_picture, colours, encoded, times_of, write_clip
from PIL import Image

from basicsr.io.video.encoders import _ENCODERS
from basicsr.io.video.reading import read_frames, video_facts
from basicsr.io.video.writing import change_video
from basicsr.utils.errors import DataError

HLG = {"color_primaries": 9, "color_trc": 18, "colorspace": 9, "color_range": 1}
PQ = {**HLG, "color_trc": 16}
QUIET = "log-level=none"


def same(frame):
    return frame


def changed(source, target, change=same):
    """Write the changed `source` to `target`; return in words what is lost."""
    with open(target, "w+b") as file:
        return change_video(source, file, target.suffix, change)


def tags(path):
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        return {name: getattr(context, name) for name in HLG}


def fact(path, name):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return getattr(stream, name, None) or getattr(stream.codec_context, name)


def ramp(count=10, dtype=np.uint8):
    """Return frames whose brightness grows along the rows and in time."""
    most = np.iinfo(dtype).max
    rows = np.linspace(0.1, 0.6, WIDTH, dtype=np.float32)
    frames = []
    for i in range(count):
        level = np.broadcast_to(rows + 0.03 * i, (HEIGHT, WIDTH))
        frames.append((np.stack([level, level * 0.8, level * 0.6], -1) * most).astype(dtype))
    return frames


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_equal_frames_become_equal_files(tmp_path, name):
    rows, columns = np.mgrid[:240, :320]
    frames = [
        np.stack([columns + 3 * i, 2 * rows + i, rows + columns + 2 * i], -1).astype(np.uint8)
        for i in range(30)
    ]
    codec = {"encoder": "libvpx-vp9"} if name == "a.webm" else {}
    write_clip(tmp_path / name, frames, **codec)
    files = [io.BytesIO() for _ in range(3)]
    for file in files:
        change_video(tmp_path / name, file, (tmp_path / name).suffix, lambda frame: 255 - frame)
    assert len({file.getvalue() for file in files}) == 1


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_variable_frame_rates_keep_every_time(tmp_path, suffix):
    source, target = tmp_path / f"a{suffix}", tmp_path / f"out{suffix}"
    times = [Fraction(i, 30) for i in range(10)] + [Fraction(10 + 7 * i, 30) for i in range(10)]
    encoder = "libvpx-vp9" if suffix == ".webm" else "libx264"
    write_clip(source, ramp(20), times, encoder=encoder)
    assert changed(source, target) == []
    assert times_of(target) == times_of(source)
    np.testing.assert_allclose(times_of(target), [float(each) for each in times], atol=0.001)
    for old, new in zip(read_frames(source), read_frames(target), strict=True):
        assert np.abs(old.astype(int) - new).mean() < 1.5


def tone(container, codec="aac", language=""):
    stream = container.add_stream(codec, rate=48000, layout="stereo")
    if language:
        stream.metadata["language"] = language
    return stream


def sound_packets(stream, seconds, start=0.0):
    rate, block = 48000, 1024
    stamps = np.arange(round(seconds * rate / block))
    for i in stamps:
        wave = 0.3 * np.sin(0.05 * np.arange(i * block, (i + 1) * block), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), "fltp", "stereo")
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = int(i) * block + round(start * rate)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def write_film(path, offset=0.7, codec="aac", subtitles=True, **settings):
    """Write a film: picture that begins after the sound, two languages, subtitles and more."""
    frames = ramp(10)
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Rain"
        picture = add_picture(container, frames, **settings)
        sounds = [tone(container, codec, "eng"), tone(container, codec, "fra")]
        sounds[0].disposition = 1
        texts = []
        is_matroska = path.suffix == ".mkv"
        if subtitles:
            texts = [container.add_stream("ass" if is_matroska else "mov_text")]
            texts[0].codec_context.subtitle_header = b"[Script Info]\nScriptType: v4.00+\n"
            texts[0].metadata["language"] = "deu"
        if is_matroska:
            container.add_attachment("font.ttf", "font/ttf", b"letters")
        container.set_chapters(
            [{"id": 1, "start": 0, "end": 500, "time_base": Fraction(1, 1000),
              "metadata": {"title": "One"}},
             {"id": 2, "start": 500, "end": 1000, "time_base": Fraction(1, 1000),
              "metadata": {"title": "Two"}}]
        )  # fmt: skip
        times = [Fraction(i, 25) + Fraction(str(offset)) for i in range(10)]
        packets = [(packet, 0) for packet in encoded(picture, frames, times)]
        packets += [(packet, 1) for sound in sounds for packet in sound_packets(sound, 1.0)]
        packets.sort(key=lambda each: (each[0].dts or 0) * each[0].time_base)
        for packet, _ in packets:
            container.mux(packet)
        for text in texts:
            data = b"0,0,Default,,0,0,0,,drip" if is_matroska else b"\x00\x04drip"
            packet = av.Packet(data)
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts = packet.dts = 300
            packet.duration = 400
            container.mux(packet)


def tracks(path):
    with av.open(str(path)) as container:
        return [
            (
                stream.type,
                stream.codec_context.codec.canonical_name if stream.codec_context else None,
                stream.metadata.get("language"),
                int(stream.disposition),
            )
            for stream in container.streams
            if stream.type != "data"
        ]


def sound_bytes(path):
    with av.open(str(path)) as container:
        return [
            [bytes(packet) for packet in container.demux(audio=index) if packet.size]
            if not container.seek(0)
            else None
            for index in range(len(container.streams.audio))
        ]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
def test_other_tracks_offsets_chapters_and_titles_are_kept(tmp_path, suffix):
    source, target = tmp_path / f"a{suffix}", tmp_path / f"out{suffix}"
    write_film(source)
    assert changed(source, target) == []
    assert tracks(target) == tracks(source)
    assert [kind for kind, *_ in tracks(target)].count("audio") == 2
    assert any(kind == "subtitle" for kind, *_ in tracks(target))
    assert sound_bytes(target) == sound_bytes(source)
    np.testing.assert_allclose(times_of(target), times_of(source), atol=1e-6)
    assert times_of(target)[0] == pytest.approx(0.7, abs=0.002)
    with av.open(str(target)) as new, av.open(str(source)) as old:
        assert new.metadata["title"] == "Rain"
        assert [each["metadata"]["title"] for each in new.chapters()] == ["One", "Two"]
        assert len(new.streams) == len(old.streams)
        if suffix == ".mkv":
            assert new.streams.attachments[0].data == b"letters"
        starts = [[float(s.start_time * s.time_base) for s in c.streams.audio] for c in (old, new)]
        np.testing.assert_allclose(starts[0], starts[1], atol=0.002)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_covers_are_kept(tmp_path, suffix):
    source, target = tmp_path / f"a{suffix}", tmp_path / f"out{suffix}"
    cover = np.full((32, 32, 3), 99, np.uint8)
    with av.open(str(source), "w") as container:
        picture = add_picture(container, ramp(5))
        if suffix == ".mkv":
            content = io.BytesIO()
            Image.fromarray(cover).save(content, "PNG")
            container.add_attachment("cover.png", "image/png", content.getvalue())
            packets = []
        else:
            stream = container.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb24"
            stream.disposition = 0x400
            packets = stream.encode(av.VideoFrame.from_ndarray(cover, "rgb24"))
        times = [Fraction(i, 25) for i in range(5)]
        for packet in [*packets, *encoded(picture, ramp(5), times)]:
            container.mux(packet)
    assert changed(source, target) == []
    covers = []
    for path in (source, target):
        with av.open(str(path)) as container:
            (stream,) = (each for each in container.streams.video if each.disposition & 0x400)
            covers.append(next(bytes(packet) for packet in container.demux(stream)))
    assert covers[0] == covers[1] != b""
    assert len(list(read_frames(target))) == 5


def test_metadata_and_time_code_of_phones_and_cameras_are_kept(tmp_path):
    source, target = tmp_path / "a.mov", tmp_path / "out.mov"
    metadata = {
        "com.apple.quicktime.make": "Apple",
        "com.apple.quicktime.location.ISO6709": "+48.8577+002.295/",
        "title": "雨",
        "creation_time": "2024-05-01T10:00:00.000000Z",
    }
    flags = {"movflags": "use_metadata_tags"}
    with av.open(str(source), "w", container_options=flags) as container:
        container.metadata.update(metadata)
        picture = add_picture(container, ramp(5))
        picture.metadata["timecode"] = "01:00:00:00"
        for packet in encoded(picture, ramp(5), [Fraction(i, 25) for i in range(5)]):
            container.mux(packet)
    assert changed(source, target) == []
    with av.open(str(source)) as old, av.open(str(target)) as new:
        assert metadata.items() <= new.metadata.items()
        assert len(new.streams) == len(old.streams) == 2
        assert new.streams[1].metadata["timecode"] == "01:00:00:00"


def test_mpeg_streams_begin_at_zero_and_keep_offsets(tmp_path):
    source, target = tmp_path / "a.mts", tmp_path / "out.mp4"
    with av.open(str(source), "w", format="mpegts") as container:
        picture, sound = add_picture(container, ramp(10)), tone(container)
        times = [Fraction(i, 25) + Fraction(1007, 10) for i in range(10)]
        packets = [*encoded(picture, ramp(10), times), *sound_packets(sound, 1.0, 100.0)]
        for packet in sorted(packets, key=lambda each: each.dts * each.time_base):
            container.mux(packet)
    assert changed(source, target) == []
    # the encoder of the sound begins 1024 samples early
    assert times_of(target)[0] == pytest.approx(0.7 + 1024 / 48000, abs=0.001)
    assert np.diff(times_of(target)) == pytest.approx(1 / 25, abs=0.001)


def test_frames_of_another_size_are_scaled_and_said(tmp_path):
    parts = []
    for number, (height, width) in enumerate([(48, 64), (96, 128)]):
        part = tmp_path / f"{number}.mts"
        image = np.full((height, width, 3), 100 + 50 * number, np.uint8)
        write_clip(part, [image] * 5, [Fraction(5 * number + i, 25) for i in range(5)])
        parts.append(part.read_bytes())
    source, target = tmp_path / "a.mts", tmp_path / "out.mp4"
    source.write_bytes(b"".join(parts))
    lost = changed(source, target)
    assert "the size of 5 frames, which differs from that of the first" in lost
    frames = list(read_frames(target))
    assert {frame.shape for frame in frames} == {(48, 64, 3)}
    assert len(frames) == 10
    assert abs(frames[-1].mean() - 150) < 3


@pytest.mark.parametrize("tagged", [HLG, PQ])
def test_ten_bits_and_colour_tags_are_kept(tmp_path, tagged):
    source, target = tmp_path / "a.mp4", tmp_path / "out.mp4"
    display = (
        "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
        ":max-cll=1000,400"
    )
    options = {"crf": "8", "x265-params": f"{QUIET}:{display}" if tagged is PQ else QUIET}
    write_clip(
        source, ramp(6, np.uint16), encoder="libx265", pix_fmt="yuv420p10le", context=tagged,
        options=options,
    )  # fmt: skip
    seen = []

    def brighter(frame):
        seen.append(frame)
        return np.minimum(frame * 1.25, 65535).astype(np.uint16)

    assert changed(source, target, brighter) == []
    assert {frame.dtype for frame in seen} == {np.dtype(np.uint16)}
    assert tags(target) == tagged
    assert fact(target, "pix_fmt") == "yuv420p10le"
    assert fact(target, "codec_tag") == "hvc1"
    for old, new in zip(seen, read_frames(target), strict=True):
        assert np.abs(old * 1.25 - new).mean() < 0.006 * 65535
    if tagged is PQ:
        data = []
        for path in (source, target):
            with av.open(str(path)) as container:
                frame = next(container.decode(video=0))
                data.append({each.type.name: bytes(each) for each in frame.side_data})
        for name in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"):
            assert data[1][name] == data[0][name]


def test_ten_bit_levels_survive_exactly_enough(tmp_path):
    """The whole range of 10-bit levels comes back within one of them, white included."""
    source, target = tmp_path / "a.mkv", tmp_path / "out.mkv"
    levels = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1).repeat(3, 2)
    frame = levels.astype(np.uint16)
    # swscale's 16-bit white is 65280
    coded = (frame * (65280 / 65535)).astype(np.uint16)
    write_clip(source, [coded], encoder="ffv1", pix_fmt="yuv444p10le", options={})
    assert changed(source, target) == []
    read = next(read_frames(source))
    assert read.max() == 65535
    assert read.min() == 0
    assert np.abs(read.astype(int) - frame).max() <= 65535 / 876 + 1
    assert np.abs(next(read_frames(target)).astype(int) - read).max() <= 65535 / 876 + 1


def test_eight_bit_tags_range_and_pixel_shape_are_kept(tmp_path):
    source, target = tmp_path / "a.mp4", tmp_path / "out.mp4"
    tagged = {"color_primaries": 5, "color_trc": 6, "colorspace": 5, "color_range": 2}
    context = {**tagged, "sample_aspect_ratio": Fraction(16, 11)}
    write_clip(source, colours(), context=context)
    assert changed(source, target) == []
    assert tags(target) == tagged
    assert fact(target, "sample_aspect_ratio") == Fraction(16, 11)
    for old, new in zip(colours(), read_frames(target), strict=True):
        assert np.abs(old.astype(int) - new).max() <= 6


def test_untagged_videos_stay_untagged(tmp_path):
    source, target = tmp_path / "a.mp4", tmp_path / "out.mp4"
    write_clip(source, colours())
    changed(source, target)
    assert tags(target) == tags(source)


def test_a_video_may_have_one_frame(tmp_path):
    source, target = tmp_path / "a.mp4", tmp_path / "out.mp4"
    options = {"crf": "10", "x265-params": f"{QUIET}:bframes=0"}
    write_clip(source, colours(1), encoder="libx265", options=options)
    for _ in range(5):
        assert changed(source, target) == []
        assert times_of(target) == [0]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_rotated_videos_are_changed_upright_and_stay_rotated(tmp_path, suffix):
    source, target = tmp_path / f"a{suffix}", tmp_path / f"out{suffix}"
    image = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    image[:16, :32] = 220
    matrix = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    write_clip(source, [image] * 3, matrix=matrix)
    shapes = []

    def darker_top(frame):
        shapes.append(frame.shape)
        frame = frame.copy()
        frame[:8] = 0
        return frame

    assert changed(source, target, darker_top) == []
    assert shapes == [(WIDTH, HEIGHT, 3)] * 3
    assert video_facts(target) == (HEIGHT, WIDTH, 3)
    expected = np.rot90(image, -1).copy()
    expected[:8] = 0
    for frame in read_frames(target):
        assert np.abs(frame.astype(int) - expected).mean() < 4
    with av.open(str(target)) as container:
        assert next(container.decode(video=0)).rotation == -90


def test_odd_sides_grow_by_a_pixel_where_the_codec_needs_it(tmp_path):
    frames = colours(3, 47, 65)
    source, target = tmp_path / "a.webm", tmp_path / "out.webm"
    write_clip(source, frames, encoder="libvpx-vp9")
    assert changed(source, target) == []
    assert video_facts(target)[:2] == (47, 65)
    target = tmp_path / "out.mp4"
    write_clip(tmp_path / "b.mkv", frames, encoder="ffv1", options={})
    assert changed(tmp_path / "b.mkv", target) == [
        "the codec ffv1 (h264 is written)",
        "the odd size 65 x 47 (66 x 48 is written)",
    ]
    for frame, colour in zip(read_frames(target), frames, strict=True):
        assert frame.shape == (48, 66, 3)
        assert np.abs(frame[:47, :65].astype(int) - colour).max() <= 8


@pytest.mark.parametrize(
    ("name", "encoder", "pix_fmt", "codec", "new_fmt", "lost"),
    [
        ("a.mkv", "libsvtav1", "yuv420p10le", "av1", "yuv420p10le", []),
        ("a.mov", "prores_ks", "yuv422p10le", "prores", "yuv422p10le", []),
        ("a.mov", "prores_ks", "yuva444p10le", "prores", "yuva444p12le",
         ["12 bits per channel (10 are written)"]),
        ("a.mkv", "ffv1", "yuv422p12le", "ffv1", "yuv422p12le", []),
        ("a.mkv", "libx264", "yuv422p10le", "h264", "yuv422p10le", []),
        ("a.mp4", "libx265", "yuv444p", "hevc", "yuv444p", []),
        ("a.avi", "mpeg4", "yuv420p", "h264", "yuv420p", ["the codec mpeg4 (h264 is written)"]),
        ("a.mpg", "mpeg2video", "yuv420p", "h264", "yuv420p",
         ["the codec mpeg2video (h264 is written)"]),
        ("a.avi", "ffv1", "yuva420p", "h264", "yuv420p",
         ["the codec ffv1 (h264 is written)", "transparency"]),
    ],
)  # fmt: skip
def test_codec_and_bits_are_kept_or_said(tmp_path, name, encoder, pix_fmt, codec, new_fmt, lost):
    source = tmp_path / name
    target = tmp_path / f"out{source.suffix if source.suffix in ('.mkv', '.mov') else '.mp4'}"
    dtype = np.uint16 if "le" in pix_fmt else np.uint8
    frames = [np.pad(frame, ((0, 16), (0, 0), (0, 0)), mode="edge") for frame in ramp(4, dtype)]
    options = {"qmin": "1", "qmax": "2"} if "mpeg" in encoder else {}
    if encoder == "libx265":
        options["x265-params"] = QUIET
    write_clip(
        source, frames, encoder=encoder, pix_fmt=pix_fmt, options=options,
        time_base=Fraction(1, 25),
    )  # fmt: skip
    assert changed(source, target) == lost
    assert fact(target, "codec").canonical_name == codec
    assert fact(target, "pix_fmt") == new_fmt
    for old, new in zip(read_frames(source), read_frames(target), strict=True):
        most = np.iinfo(dtype).max
        assert np.abs(old.astype(int) - new).mean() < 0.01 * most
    np.testing.assert_allclose(np.diff(times_of(target)), 1 / 25, atol=0.001)


def test_transparency_of_prores_is_kept(tmp_path):
    source, target = tmp_path / "a.mov", tmp_path / "out.mov"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("prores_ks", rate=25, options={"profile": "4444"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuva444p10le"
        image = np.full((HEIGHT, WIDTH, 4), 30000, np.uint16)
        image[:, : WIDTH // 2, 3] = 0
        frame = av.VideoFrame.from_ndarray(image, format="rgba64le")
        container.mux(stream.encode(frame.reformat(format="yuva444p10le")))
        container.mux(stream.encode(None))
    assert changed(source, target) == ["12 bits per channel (10 are written)"]
    with av.open(str(target)) as container:
        alpha = next(container.decode(video=0)).reformat(format="rgba64le").to_ndarray()[..., 3]
    assert alpha[:, : WIDTH // 2].max() < 700
    np.testing.assert_allclose(alpha[:, WIDTH // 2 :], 30000, atol=200)


def test_transparency_of_webm_is_said_and_no_longer_announced(tmp_path):
    source, target = tmp_path / "a.webm", tmp_path / "out.webm"
    with av.open(str(source), "w") as container:
        stream = add_picture(container, colours(2), encoder="libvpx-vp9")
        stream.metadata["alpha_mode"] = "1"
        for packet in encoded(stream, colours(2), [0, Fraction(1, 25)]):
            container.mux(packet)
    assert changed(source, target) == ["transparency"]
    with av.open(str(target)) as container:
        assert "alpha_mode" not in {key.lower() for key in container.streams.video[0].metadata}


def test_ten_bit_vp9_becomes_av1_in_webm(tmp_path):
    source, target = tmp_path / "a.mkv", tmp_path / "out.webm"
    frames = [np.full((64, 64, 3), 9000 * i, np.uint16) for i in range(4)]
    write_clip(source, frames, encoder="ffv1", pix_fmt="yuv420p10le", options={})
    assert changed(source, target) == ["the codec ffv1 (av1 is written)"]
    assert fact(target, "pix_fmt") == "yuv420p10le"


def test_missing_encoders_are_replaced(tmp_path, monkeypatch):
    source, target = tmp_path / "a.mp4", tmp_path / "out.mp4"
    write_clip(source, colours())
    monkeypatch.setitem(_ENCODERS, "mp4", ("none", "libvpx-vp9"))
    assert changed(source, target) == ["the codec h264 (vp9 is written)"]
    monkeypatch.setitem(_ENCODERS, "mp4", ("none",))
    with pytest.raises(DataError, match=r"a\.mp4: no encoder of this PyAV can"):
        changed(source, target)


def test_interlaced_videos_are_said(tmp_path):
    source, target = tmp_path / "a.mp4", tmp_path / "out.mp4"
    options = {"x264-params": "interlaced=1"}
    write_clip(source, ramp(4), options=options)
    assert any(words.startswith("interlacing") for words in changed(source, target))


def test_sound_that_mp4_cannot_hold_becomes_aac(tmp_path):
    source, target = tmp_path / "a.wmv", tmp_path / "out.mp4"
    with av.open(str(source), "w", format="asf") as container:
        picture = add_picture(
            container, ramp(10), encoder="wmv2", options={}, time_base=Fraction(1, 25)
        )
        sound = container.add_stream("wmav2", rate=44100, layout="stereo", bit_rate=128000)
        for packet in encoded(picture, ramp(10), [Fraction(i, 25) for i in range(10)]):
            container.mux(packet)
        for i in range(20):
            wave = np.full((2, 2048), 0.1, np.float32)
            frame = av.AudioFrame.from_ndarray(wave, "fltp", "stereo")
            frame.sample_rate, frame.pts = 44100, 2048 * i
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    lost = changed(source, target)
    assert "the sound's codec wmav2 (aac is written)" in lost
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples == pytest.approx(20 * 2048, abs=3 * 2048)


def test_tracks_that_the_format_cannot_hold_are_named(tmp_path):
    source, target = tmp_path / "a.mkv", tmp_path / "out.mp4"
    write_film(source)
    assert changed(source, target) == ["a subtitle track (ass)", "an attachment track (font.ttf)"]


def test_frames_are_consumed_one_by_one(tmp_path):
    source = tmp_path / "a.mp4"
    write_clip(source, ramp(20))
    seen = []

    def change(frame):
        assert sum(each() is not None for each in seen) <= 2
        seen.append(weakref.ref(frame))
        return frame.copy()

    changed(source, tmp_path / "out.mp4", change)
    assert len(seen) == 20


def test_new_frames_may_have_another_size(tmp_path):
    source, target = tmp_path / "a.mp4", tmp_path / "out.mp4"
    write_clip(source, colours())
    changed(source, target, lambda frame: np.hstack([frame, frame]))
    for frame, colour in zip(read_frames(target), colours(), strict=True):
        assert np.abs(frame.astype(int) - np.hstack([colour, colour])).max() <= 6


def test_errors_of_the_change_are_raised(tmp_path):
    write_clip(tmp_path / "a.mp4", colours())

    def change(frame):
        raise DataError("the network")

    with pytest.raises(DataError, match="the network"):
        changed(tmp_path / "a.mp4", tmp_path / "out.mp4", change)


def test_a_full_disk_is_an_error_of_the_disk(tmp_path):
    class Full(io.BytesIO):
        def write(self, data):
            if self.tell() > 2000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    noise = np.random.default_rng(0).integers(0, 256, (20, HEIGHT, WIDTH, 3), dtype=np.uint8)
    write_clip(tmp_path / "a.mp4", list(noise))
    with pytest.raises(OSError, match="No space left") as raised:
        change_video(tmp_path / "a.mp4", Full(), ".mp4", same)
    assert raised.value.errno == errno.ENOSPC
