"""Settings: every key is typed, in range and honoured or refused; what is wrong is told with its line."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from fedpost.compat.kafkafl import (
    AdvancedSerializer,
    CompressionType,
    DifferentialUpdateManager,
    KafkaSettings,
    PerformanceSettings,
    PrivacySettings,
    SecuritySettings,
    SerializationError,
    SerializationFormat,
    SerializationProfiler,
    SerializationSettings,
    Settings,
    load_settings,
)
from fedpost.errors import ConfigError
from fedpost.telemetry import Telemetry


def wrong(config):
    with pytest.raises(ConfigError) as caught:
        AdvancedSerializer(config)
    return caught.value


@pytest.mark.parametrize("member", [*SerializationFormat, *CompressionType])
def test_members_and_their_values_are_the_same(member):
    key = "default_format" if isinstance(member, SerializationFormat) else "default_compression"
    assert AdvancedSerializer({key: member}).settings == AdvancedSerializer({key: member.value}).settings
    assert AdvancedSerializer({key: member}).config[key] is member


def test_settings_themselves_are_taken():
    settings = SerializationSettings(chunk_size=4096)
    assert AdvancedSerializer(settings).settings is settings


def test_the_configuration_cannot_be_changed_behind_the_serializer_s_back():
    with pytest.raises(TypeError):
        AdvancedSerializer().config["compression_level"] = 9


@pytest.mark.parametrize(
    ("config", "what", "hint"),
    [
        ({"compresion_level": 3}, "unknown key 'compresion_level'", "Did you mean 'compression_level'?"),
        ({"x": 3}, "unknown key 'x'", "Known: default_format, default_compression, checksum_algorithm, "),
        ({"default_format": "pickle"}, "unknown value 'pickle'", "Did you mean 'numpy_pickle'?"),
        ({"default_compression": "brotli"}, "unknown value 'brotli'", "Known: none, gzip, zstd, lz4."),
        ({"default_compression": "zst"}, "unknown value 'zst'", "Did you mean 'zstd'?"),
        ({"checksum_algorithm": "sha512"}, "unknown checksum 'sha512'", "Did you mean 'sha256'?"),
        ({"checksum_algorithm": "none"}, "a package needs a checksum", None),
        ({"compression_level": 99}, "'zstd(99)': zstd has the levels", None),
        ({"default_compression": "gzip", "compression_level": 10}, "'gzip(10)': gzip has the levels 0 to 9", None),
        ({"compression_level": 3.5}, "expected `int | null`, got `float`", None),
        ({"compression_level": True}, "expected `int | null`, got `bool`", None),
        ({"chunk_size": 4095}, "expected `int` >= 4096", None),
        ({"chunk_size": 1 << 40}, "expected `int` <=", None),
        ({"validate_on_serialize": "yes"}, "expected `bool`, got `str`", None),
        ({"enable_encryption": True}, "sealing is not available in this version", "Set it to False."),
        ({1: 2}, "expected `str`", None),
        ([("chunk_size", 4096)], "expected `object`, got `array`", None),
    ],
)
def test_what_is_wrong_is_named(config, what, hint):
    error = wrong(config)
    assert what in error.what
    assert (error.hint or "").startswith(hint or "")
    if isinstance(config, dict) and len(config) == 1 and 1 not in config:
        assert error.where == next(iter(config))


def test_a_level_is_not_asked_of_no_compression():
    assert AdvancedSerializer({"default_compression": "none", "compression_level": 3}).settings.compression_level == 3


# ── the template ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return load_settings(path)

    return load


def refused(load, text):
    with pytest.raises(ConfigError) as caught:
        load(text)
    return caught.value


def test_every_part_may_be_left_out(load):
    assert load("{}") == Settings()
    assert load("kafka: {max_message_size: 2000000}\n").kafka.bootstrap_servers == ("localhost:9092",)
    assert load_settings({"performance": {"profiling_interval": 7}}).performance.profiling_interval == 7
    assert Settings().not_built() == {}


@pytest.mark.parametrize(
    ("text", "line", "what", "hint"),
    [
        ("serialization:\n  default_format: zstd\n", 2, "unknown value 'zstd'", "Known: binary_custom"),
        ("serialisation: {}\n", 1, "unknown key 'serialisation'", "Did you mean 'serialization'?"),
        (
            "kafka:\n  topics:\n    weight_update: a\n",
            3,
            "unknown key 'weight_update'",
            "Did you mean 'weight_updates'?",
        ),
        ("kafka:\n  topics:\n    weight_updates: a b\n", 3, "matching regex", None),
        ("kafka:\n  bootstrap_servers: [localhost]\n", 2, "matching regex", None),
        ("kafka:\n  bootstrap_servers: []\n", 2, "length >= 1", None),
        ("kafka_topics: {}\n", 1, "unknown key 'kafka_topics'", "Known: serialization,"),
        ("privacy:\n  budget: 1.0\n", 2, "unknown key 'budget'", "Did you mean 'privacy_budget'?"),
        ("privacy:\n  privacy_budget: 0\n", 2, "> 0", None),
        ("privacy:\n  privacy_budget: .inf\n", 2, "<=", None),
        ("privacy:\n  privacy_budget: .nan\n", 2, "expected `float`", None),
        ("privacy:\n  noise_mechanism: cauchy\n", 2, "unknown value 'cauchy'", "Known: laplace, gaussian."),
        (
            "privacy:\n  differential_privacy_enabled: true\n",
            2,
            "differential privacy is not available",
            "Switch it off",
        ),
        ("security:\n\n  encryption_enabled: true\n", 3, "sealing is not available", "Switch it off"),
        ("serialization:\n  enable_encryption: true\n", 2, "sealing is not available", "Switch it off"),
        ("security:\n  encryption_algorithm: rot13\n", 2, "unknown value 'rot13'", "Known: fernet."),
        ("security:\n  key_rotation_interval: 0\n", 2, "> 0", None),
        ("communication:\n  message_timeout: 0\n", 2, ">= 1", None),
        ("communication:\n  max_retries: -1\n", 2, ">= 0", None),
        ("communication:\n  compression_threshold: -0.1\n", 2, ">= 0", None),
        ("performance:\n  profiling_interval: 0\n", 2, ">= 1", None),
        ("performance:\n  max_serialization_time: 0.0\n", 2, "> 0", None),
        ("serialization:\n  compression_level: 99\n", 2, "zstd has the levels", None),
        ("serialization:\n  checksum_algorithm: md5\n", 2, "unknown checksum 'md5'", None),
        (
            "serialization: {chunk_size: 20000000}\n",
            1,
            "more than a message may have",
            "kafka.max_message_size is 1048",
        ),
        ("kafka: {}\nkafka: {}\n", 2, "comes twice", None),
        ("kafka: [\n", 2, "not YAML", None),
        ("kafka: !!python/object:os.system {}\n", 1, "not YAML", None),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(load, tmp_path, text, line, what, hint):
    error = refused(load, text)
    assert what in error.what
    assert error.where == f"{tmp_path}/settings.yaml:{line}"
    assert (error.hint or "").startswith(hint or "")


def test_what_is_no_configuration(load, tmp_path):
    assert "expected `object`" in refused(load, "- a\n").what
    assert "expected `object`" in refused(load, "").what
    assert "more than 1048576 bytes" in refused(load, "#" * (1 << 20) + "\n").what
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "latin.yaml")


def test_files_that_go_round_in_circles_or_deep(load):
    assert "inside itself" in refused(load, "kafka: &a {topics: *a}\n").what
    assert "too deep" in refused(load, f"kafka: {'[' * 20_000}{']' * 20_000}\n").what


def test_a_mapping_is_checked_alike():
    with pytest.raises(ConfigError, match="unknown key 'topic'") as caught:
        load_settings({"kafka": {"topic": {}}})
    assert caught.value.where == "kafka.topic"
    with pytest.raises(ConfigError, match="sealing"):
        load_settings({"security": {"encryption_enabled": True}})


def test_what_is_not_there_is_known_by_name():
    settings = Settings(
        security=SecuritySettings(encryption_enabled=True), privacy=PrivacySettings(differential_privacy_enabled=True)
    )
    assert settings.not_built() == {
        "security.encryption_enabled": "sealing",
        "privacy.differential_privacy_enabled": "differential privacy",
    }


def test_differential_updates_are_there(caplog, load):
    settings = load("communication:\n  enable_differential_updates: true\n  compression_threshold: 0.25\n")
    assert not caplog.records
    assert settings.not_built() == {}
    assert DifferentialUpdateManager(settings).compression_threshold == 0.25


WEIGHTS = [np.random.default_rng(3).random(20_000)]


def test_the_whole_template_is_taken_and_all_of_it_counts(caplog):
    settings = load_settings(
        {
            "serialization": {"default_compression": "none", "chunk_size": 8192},
            "kafka": {"max_message_size": 8192},
            "performance": {"profiling_interval": 2, "max_serialization_time": 60.0},
        }
    )
    serializer = AdvancedSerializer(settings)
    assert serializer.settings is settings.serialization
    with caplog.at_level("INFO", logger="fedpost.compat.kafkafl"):
        package, _ = serializer.serialize_comprehensive(WEIGHTS)
        assert not caplog.records
        serializer.deserialize_comprehensive(package)
        assert "after 2 operations" in caplog.text
    assert serializer.profiler.get_performance_report()["serialization_times"]["count"] == 1
    hurried = msgspec.structs.replace(
        settings, performance=PerformanceSettings(enable_profiling=False, max_serialization_time=1e-9)
    )
    with pytest.raises(SerializationError, match=r"1e-09 s allowed"):
        AdvancedSerializer(hurried).serialize_comprehensive(WEIGHTS)
    patient = AdvancedSerializer(hurried, max_serialization_time=60.0)
    patient.serialize_comprehensive(WEIGHTS)  # what the caller says goes before
    assert patient.profiler is None
    assert AdvancedSerializer(settings.serialization).profiler is None


def test_a_profiler_that_is_there_is_not_doubled():
    settings = Settings()
    profiler = SerializationProfiler(settings.performance)
    serializer = AdvancedSerializer(settings, telemetry=Telemetry(profiler))
    serializer.serialize_comprehensive(WEIGHTS)
    assert serializer.profiler is profiler
    assert profiler.get_performance_report()["error_rates"]["count"] == 1


def test_one_part_may_not_be_more_than_a_message():
    settings = {"serialization": {"enable_chunking": False, "default_compression": "none"}}
    whole = AdvancedSerializer(load_settings({**settings, "kafka": {"max_message_size": 65_536}}))
    package, _ = whole.serialize_comprehensive(WEIGHTS)
    with pytest.raises(SerializationError, match="of a message") as caught:
        whole.iter_parts(package)
    assert caught.value.where == "kafka.max_message_size"
    (part,) = AdvancedSerializer(load_settings(settings)).iter_parts(package)
    size = part.nbytes
    exact = AdvancedSerializer(load_settings({**settings, "kafka": {"max_message_size": size}}))
    assert len(bytes(next(iter(exact.iter_parts(package))))) == size
    with pytest.raises(SerializationError, match=f"{size} bytes are more than the {size - 1}"):
        AdvancedSerializer(load_settings({**settings, "kafka": {"max_message_size": size - 1}})).iter_parts(package)


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        (Settings(security=SecuritySettings(encryption_enabled=True)), "security.encryption_enabled"),
        (Settings(privacy=PrivacySettings(differential_privacy_enabled=True)), "privacy.differential_privacy_enabled"),
        (Settings(kafka=KafkaSettings(max_message_size=4096)), "serialization.chunk_size"),
        (Settings(serialization=SerializationSettings(compression_level=99)), "serialization.compression_level"),
    ],
)
def test_a_template_that_was_made_by_hand_is_checked_too(settings, where):
    assert wrong(settings).where == where


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        Settings().kafka.max_message_size = 1
    assert msgspec.structs.replace(Settings(), kafka=Settings().kafka) == Settings()
