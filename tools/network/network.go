// Package network puts the processes of a cluster on one machine into network
// namespaces of their own, so that what lies between any two of them can be
// cut: in both directions or in one, for connections that stand as well as for
// new ones.
//
//	this process ── veth ──┐
//	node p1      ── veth ──┤ bridge, in a namespace that only holds it
//	node a1      ── veth ──┘
//
// Every node knows the hardware addresses of all others by permanent entries
// of its neighbour table; nobody ever asks. A direction is cut by entering an
// address that nobody has: packets leave and arrive nowhere, no error comes
// back, and the connection hangs as it would over a dead link.
//
// The namespaces have no names. They are gone, with every interface in them
// and with ours, when this process and the processes inside have ended, however
// they ended. It needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
package network

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Outside is the name of the node that is this process. It is never cut by name
// of a node that is not there.
const Outside = "outside"

// nodesMax is what a /24 holds besides its first and last address.
const nodesMax = 254

// Network is a switch with nodes around it. It is safe for concurrent use.
type Network struct {
	subnet [3]byte
	uplink string // our interface

	mu    sync.Mutex // guards the switch and the neighbour tables
	hub   netns.NsHandle
	nodes map[string]*node
	order []string
	cuts  map[[2]string]bool
}

type node struct {
	ip  net.IP
	mac net.HardwareAddr
	ns  netns.NsHandle
	// index of its interface in ns
	index int
}

// New makes a network of the named nodes and this process.
func New(names ...string) (*Network, error) {
	names = append([]string{Outside}, names...)
	if len(names) > nodesMax {
		return nil, fmt.Errorf("%d nodes: want at most %d", len(names)-1, nodesMax-1)
	}
	n := &Network{hub: netns.None(), nodes: map[string]*node{}, cuts: map[[2]string]bool{}, order: names}
	if err := n.make(names); err != nil {
		n.Close()
		return nil, fmt.Errorf("no network of namespaces (root is needed): %w", err)
	}
	return n, nil
}

func (n *Network) make(names []string) (err error) {
	if n.subnet, err = freeSubnet(); err != nil {
		return err
	}
	if n.hub, err = newNamespace(); err != nil {
		return err
	}
	hub, err := netlink.NewHandleAt(n.hub)
	if err != nil {
		return err
	}
	defer hub.Close()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge"}}
	if err := hub.LinkAdd(bridge); err != nil {
		return err
	}
	if err := hub.LinkSetUp(bridge); err != nil {
		return err
	}
	for i, name := range names {
		if err := n.add(hub, bridge, i, name); err != nil {
			return fmt.Errorf("node %s: %w", name, err)
		}
	}
	for _, from := range names {
		for _, to := range names {
			if from != to {
				if err := n.neighbour(from, to, n.nodes[to].mac); err != nil {
					return fmt.Errorf("node %s: %w", from, err)
				}
			}
		}
	}
	return nil
}

// newNamespace makes a namespace that only its handle holds.
func newNamespace() (h netns.NsHandle, err error) {
	done := make(chan struct{})
	go func() { // its thread is in the new namespace and ends with it
		defer close(done)
		runtime.LockOSThread()
		h, err = netns.New()
	}()
	<-done
	return h, err
}

// freeSubnet chooses a /24 of the range for measurements (RFC 2544) in which
// this machine has no address.
func freeSubnet() (subnet [3]byte, err error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return subnet, err
	}
	for range 100 {
		subnet = [3]byte{198, byte(18 + rand.IntN(2)), byte(rand.IntN(256))}
		probe := net.IPv4(subnet[0], subnet[1], subnet[2], 1)
		if !slices.ContainsFunc(addrs, func(a net.Addr) bool {
			in, ok := a.(*net.IPNet)
			return ok && in.Contains(probe)
		}) {
			return subnet, nil
		}
	}
	return subnet, errors.New("198.18.0.0/15 is taken")
}

// add makes a node and plugs it into the bridge.
func (n *Network) add(hub *netlink.Handle, bridge netlink.Link, i int, name string) (err error) {
	nd := &node{
		ip:  net.IPv4(n.subnet[0], n.subnet[1], n.subnet[2], byte(i+1)).To4(),
		mac: net.HardwareAddr{0x02, 0xa5, n.subnet[1], n.subnet[2], 0, byte(i + 1)},
	}
	if name == Outside {
		nd.ns, err = netns.Get()
	} else {
		nd.ns, err = newNamespace()
	}
	if err != nil {
		return err
	}
	n.nodes[name] = nd
	inside := "eth0"
	if name == Outside {
		n.uplink = fmt.Sprintf("ash%x%x%x", n.subnet[1], n.subnet[2], os.Getpid()&0xffffff)
		inside = n.uplink
	}
	port := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("port%d", i), MasterIndex: bridge.Attrs().Index},
		PeerName:  inside, PeerHardwareAddr: nd.mac, PeerNamespace: netlink.NsFd(int(nd.ns)),
	}
	if err := hub.LinkAdd(port); err != nil {
		return err
	}
	if err := hub.LinkSetUp(port); err != nil {
		return err
	}
	own, err := netlink.NewHandleAt(nd.ns)
	if err != nil {
		return err
	}
	defer own.Close()
	return nd.up(own, inside)
}

// up gives the node its address and its loopback.
func (nd *node) up(h *netlink.Handle, inside string) error {
	link, err := h.LinkByName(inside)
	if err != nil {
		return err
	}
	nd.index = link.Attrs().Index
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: nd.ip, Mask: net.CIDRMask(24, 32)}}
	if err := h.AddrAdd(link, addr); err != nil {
		return err
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.LinkSetUp(lo)
}

// nobody has this hardware address.
var nobody = net.HardwareAddr{0x02, 0xa5, 0xff, 0xff, 0xff, 0xff}

func (n *Network) neighbour(from, to string, mac net.HardwareAddr) error {
	nd := n.nodes[from]
	h, err := netlink.NewHandleAt(nd.ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return h.NeighSet(&netlink.Neigh{
		LinkIndex: nd.index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT,
		IP: n.nodes[to].ip, HardwareAddr: mac,
	})
}

// Names lists the nodes but this process, in the order of New.
func (n *Network) Names() []string { return slices.Clone(n.order[1:]) }

// IP is the address of a node, empty if there is none of that name.
func (n *Network) IP(name string) string {
	if nd := n.nodes[name]; nd != nil {
		return nd.ip.String()
	}
	return ""
}

// Enter calls f on a thread that is in the node's namespace: a process that f
// starts lives there, and so does a socket that f makes. f must not start
// goroutines that rely on it.
func (n *Network) Enter(name string, f func()) error {
	nd := n.nodes[name]
	if nd == nil {
		return fmt.Errorf("no node %q", name)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer home.Close()
	if err := netns.Set(nd.ns); err != nil {
		return err
	}
	defer func() {
		if err := netns.Set(home); err != nil {
			panic("network: the thread cannot leave the namespace: " + err.Error())
		}
	}()
	f()
	return nil
}

// Cut lets every packet from one node to another vanish. The other direction is
// left as it is.
func (n *Network) Cut(from, to string) error { return n.set(from, to, true) }

// Mend takes a Cut back.
func (n *Network) Mend(from, to string) error { return n.set(from, to, false) }

func (n *Network) set(from, to string, cut bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes[from] == nil || n.nodes[to] == nil || from == to {
		return fmt.Errorf("no link from %q to %q", from, to)
	}
	pair := [2]string{from, to}
	if n.cuts[pair] == cut {
		return nil
	}
	mac := n.nodes[to].mac
	if cut {
		mac = nobody
	}
	if err := n.neighbour(from, to, mac); err != nil {
		return err
	}
	if n.cuts[pair] = cut; !cut {
		delete(n.cuts, pair)
	}
	return nil
}

// MendAll takes every Cut back.
func (n *Network) MendAll() error {
	n.mu.Lock()
	var pairs [][2]string
	for pair := range n.cuts {
		pairs = append(pairs, pair)
	}
	n.mu.Unlock()
	var errs []error
	for _, pair := range pairs {
		errs = append(errs, n.Mend(pair[0], pair[1]))
	}
	return errors.Join(errs...)
}

// Close takes the network down. Processes that are still inside keep their
// namespaces, but reach nobody.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.uplink != "" {
		if link, err := netlink.LinkByName(n.uplink); err == nil {
			_ = netlink.LinkDel(link) // its peer's end may have taken it along
		}
	}
	for _, nd := range n.nodes {
		nd.ns.Close()
	}
	if n.hub.IsOpen() {
		n.hub.Close()
	}
}
