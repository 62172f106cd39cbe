// Package systemd holds what an operating system needs to run Ashlar as
// services: the units, the users, the directories and the udev rule. It is data;
// the only code is the tests that check it with systemd's own tools, and
// notify, by which a service says that it is ready.
//
//	ashlar-daemon.service      the disks of a host         ashlar.target   all of them
//	ashlar-placement.service   a member of the quorum      ashlar.sysusers users
//	ashlar-gateway.service     S3                          ashlar.tmpfiles directories
//	ashlar-smart.service, .timer  ask the disks now and then
//	65-ashlar.rules            claimed disks to group ashlar, and visible as such
//
// Each service starts only where its file exists in /etc/ashlar, so a host runs
// what it is configured for, and `systemctl enable ashlar-daemon ashlar-smart.timer
// ashlar.target` is the same on all. All are Type=notify with a watchdog: a service that does
// not call notify.Ready never counts as started.
//
// No service has root, a capability, or a writable path outside its state
// directory, but for ashlar-smart, which runs now and then, for seconds, without a
// network, because smartctl needs capabilities: it leaves what disks say of
// themselves in /run/ashlar/smart. `systemd-analyze security` must score each at 2.0 or below.
package systemd
