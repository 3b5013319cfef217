use proptest::prelude::*;

use super::*;

const UUID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

fn domain(rest: &str, devices: &str) -> Definition {
    let text = format!(
        "<domain type='kvm'><name>web</name><uuid>{UUID}</uuid>{rest}<devices>{devices}</devices></domain>"
    );
    Definition::parse(&text).unwrap()
}

fn hindrances(rest: &str, devices: &str) -> Vec<&'static str> {
    domain(rest, devices).hindrances.into_iter().collect()
}

#[test]
fn a_plain_guest_has_its_parts_and_no_hindrance() {
    let definition = domain(
        "<os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type><kernel>/boot/k</kernel></os>\
         <cpu mode='custom' match='exact'><model>qemu64</model></cpu>",
        "<emulator>/usr/bin/qemu-system-x86_64</emulator>\
         <interface type='bridge'><source bridge='br0'/></interface>\
         <interface type='network'><source network='lan'/></interface>\
         <interface type='bridge'><source bridge='br0'/></interface>\
         <disk type='network' device='disk'><source protocol='nbd' name='web'/><target dev='vda'/></disk>",
    );
    assert_eq!(definition.uuid, UUID.parse().ok());
    assert_eq!(definition.machine.as_deref(), Some("pc-i440fx-7.2"));
    assert_eq!(definition.networks, ["br0", "network:lan"]);
    assert_eq!(definition.files, ["/boot/k"]);
    assert_eq!(
        definition.disks[0].source,
        DiskSource::Network("nbd".into())
    );
    assert!(definition.cpu.unwrap().ends_with("</cpu>"));
    assert!(definition.hindrances.is_empty());
    assert_eq!(definition.cpu_limit_cores, None);
}

#[test]
fn an_overlay_needs_every_image_below_it() {
    let sources = |disk: &str| {
        let definition = domain(
            "",
            &format!("<disk type='file' device='disk'>{disk}</disk>"),
        );
        definition.disks[0].sources().cloned().collect::<Vec<_>>()
    };
    let file = |path: &str| DiskSource::File(path.into());
    assert_eq!(
        sources(
            "<source file='/srv/nfs/a'/><backingStore type='file'><format type='qcow2'/>\
             <source file='/var/base'/><backingStore type='block'><source dev='/dev/vg/lv'/>\
             <backingStore/></backingStore></backingStore>"
        ),
        [
            file("/srv/nfs/a"),
            file("/var/base"),
            DiskSource::Block("/dev/vg/lv".into())
        ]
    );
    assert_eq!(
        sources("<source file='/a'/><backingStore type='file'/>"),
        [file("/a"), DiskSource::Other],
        "unknown is not none"
    );
    assert_eq!(sources("<source file='/a'/><backingStore/>"), [file("/a")]);
    let layers = 300;
    let deep = "<backingStore type='file'><source file='/b'/>".repeat(layers)
        + &"</backingStore>".repeat(layers);
    let sources = sources(&format!("<source file='/a'/>{deep}"));
    assert_eq!(sources.len(), MOST_LAYERS + 2);
    assert_eq!(sources.last(), Some(&DiskSource::Other));
}

#[test]
fn whatever_ties_a_guest_to_its_machine_is_named() {
    for (rest, devices, name) in [
        ("", "<hostdev mode='subsystem' type='pci'/>", "host_device"),
        ("", "<hostdev type='mdev'/>", "mediated_device"),
        ("", "<interface type='hostdev'/>", "host_device"),
        ("", "<interface type='ethernet'/>", "unknown_interface"),
        ("", "<interface type='vhostuser'/>", "vhost_user"),
        (
            "",
            "<filesystem type='mount'><driver type='virtiofs'/></filesystem>",
            "virtiofs",
        ),
        ("", "<filesystem type='mount'/>", "shared_directory"),
        (
            "",
            "<tpm><backend type='passthrough'/></tpm>",
            "host_device",
        ),
        ("", "<serial type='dev'/>", "host_device"),
        ("", "<shmem name='x'/>", "shared_memory"),
        ("", "<memory model='nvdimm'/>", "local_memory_device"),
        (
            "",
            "<disk type='nvme'><source/><target dev='vda'/></disk>",
            "host_device",
        ),
        (
            "<cputune><vcpupin vcpu='0' cpuset='1'/></cputune>",
            "",
            "cpu_pinned",
        ),
        ("<vcpu cpuset='0-3'>2</vcpu>", "", "cpu_pinned"),
        (
            "<numatune><memory mode='strict' nodeset='0'/></numatune>",
            "",
            "numa_pinned",
        ),
        (
            "<cpu mode='host-passthrough' migratable='off'/>",
            "",
            "cpu_not_migratable",
        ),
        (
            "<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/></metadata>",
            "",
            "foreign_manager",
        ),
        (
            "<metadata><o:vm xmlns:o='http://ovirt.org/vm/1.0'/></metadata>",
            "",
            "foreign_manager",
        ),
    ] {
        assert_eq!(hindrances(rest, devices), [name], "{rest}{devices}");
    }
}

#[test]
fn an_emulated_tpm_and_user_networks_hinder_nothing() {
    let devices =
        "<tpm><backend type='emulator'/></tpm><interface type='user'/><serial type='pty'/>";
    assert!(hindrances("", devices).is_empty());
}

#[test]
fn own_metadata_is_read_and_an_adopted_guest_is_ours() {
    let metadata = format!(
        "<metadata><n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.0'/>\
         <evenkeel:guest xmlns:evenkeel='{NAMESPACE}' group='db' priority='-3' move='never' adopt='yes'>\
         <evenkeel:tag name='rack' value='r1'/><evenkeel:tag name='tier'>gold</evenkeel:tag>\
         <evenkeel:tag/></evenkeel:guest></metadata>"
    );
    let definition = domain(&metadata, "");
    assert_eq!(definition.group.as_deref(), Some("db"));
    assert_eq!(definition.priority, -3);
    assert!(definition.opted_out);
    assert!(definition.hindrances.is_empty());
    assert_eq!(definition.labels["rack"], "r1");
    assert_eq!(definition.labels["tier"], "gold");
    assert_eq!(definition.labels.len(), 2);
}

#[test]
fn the_tighter_quota_is_the_limit() {
    let limit = |tune: &str| {
        domain(&format!("<vcpu>4</vcpu><cputune>{tune}</cputune>"), "").cpu_limit_cores
    };
    assert_eq!(
        limit("<quota>50000</quota><period>100000</period>"),
        Some(2.0)
    );
    assert_eq!(limit("<quota>50000</quota>"), Some(2.0));
    assert_eq!(
        limit("<quota>50000</quota><global_quota>100000</global_quota>"),
        Some(1.0)
    );
    assert_eq!(limit("<quota>-1</quota>"), None);
    assert_eq!(limit("<period>0</period><quota>100000</quota>"), Some(4.0));
    assert_eq!(limit("<shares>10</shares>"), None);
}

#[test]
fn what_is_no_definition_is_an_error() {
    for text in [
        "",
        "<domain/>",
        "<domain><name> </name></domain>",
        "<domain><name>x",
        "&",
    ] {
        assert!(Definition::parse(text).is_err(), "{text:?}");
    }
    assert!(matches!(
        Definition::parse(&" ".repeat(MOST_BYTES + 1)),
        Err(DefinitionError::TooLarge { .. })
    ));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,400}") {
        let _ = Definition::parse(&text);
    }

    #[test]
    fn no_arrangement_of_real_elements_makes_it_panic(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("<disk type='file'><source/></disk>"), Just("<disk/>"), Just("<interface/>"),
                Just("<interface type='bridge'/>"), Just("<hostdev/>"), Just("<vcpu>x</vcpu>"),
                Just("<cputune><quota>1e400</quota></cputune>"), Just("<metadata><a/></metadata>"),
                Just("<cpu/>"), Just("<name>n</name>"), Just("<devices>"), Just("</devices>"),
            ],
            0..12,
        )
    ) {
        let _ = Definition::parse(&format!("<domain>{}</domain>", parts.concat()));
    }
}

#[test]
fn disks_are_told_apart_and_those_meant_to_be_shared_are_known() {
    let of = |source: &str, more: &str| {
        let kind = source.split('=').next().unwrap_or_default();
        let kind = match kind {
            "file" => "file",
            "dev" => "block",
            "pool" => "volume",
            _ => "network",
        };
        let text = format!(
            "<domain type='kvm'><name>a</name><devices><disk type='{kind}' device='disk'>\
             <source {source}><host name='10.0.0.1' port='10809'/></source><target dev='vda'/>{more}\
             </disk></devices></domain>"
        );
        let disk = Definition::parse(&text).unwrap().disks.remove(0);
        (disk.identity, disk.shareable)
    };
    let alone = |text: &str| (text.to_owned(), false);
    assert_eq!(of("file='/srv/a.qcow2'", ""), alone("/srv/a.qcow2"));
    assert_eq!(
        of("dev='/dev/disk/by-id/wwn-0x5'", ""),
        alone("/dev/disk/by-id/wwn-0x5")
    );
    assert_eq!(of("pool='vm' volume='a'", ""), alone("vm/a"));
    assert_eq!(
        of("protocol='nbd' name='a'", ""),
        alone("nbd://10.0.0.1:10809/a")
    );
    assert_eq!(of("x='y'", ""), alone(""));
    assert!(of("file='/srv/a'", "<shareable/>").1);
}
