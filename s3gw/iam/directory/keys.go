package directory

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"sync"

	"ashlar"
	"ashlar/s3gw/iam"
	"ashlar/s3gw/iam/session"
	"ashlar/s3gw/s3"
	"ashlar/s3gw/sse"
	"ashlar/s3gw/store"
)

// counter reads a counter.
func (d *Directory) counter(ctx context.Context, key []byte) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	r, err := d.meta.Get(ctx, shard, key)
	if ashlar.Is(err, ashlar.NotFound) {
		return 0, nil
	}
	if err == nil && len(r.Value) != 8 {
		err = ashlar.E("directory: counter", "", ashlar.Corrupt, nil)
	}
	if err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint64(r.Value)), nil
}

// seal keeps 32 secret bytes, bound to what they belong to.
func (d *Directory) seal(ctx context.Context, secret sse.Key, of string) (*Sealed, error) {
	if d.keys == nil {
		return &Sealed{Value: secret[:]}, nil
	}
	by, sealed, err := d.keys.Seal(ctx, store.SSES3, "", secret, []byte("ashlar identity "+of))
	if errors.Is(err, store.ErrNoSuchEncryptionKey) { // the keyring has no key for this
		return &Sealed{Value: secret[:]}, nil
	}
	return &Sealed{Value: sealed, By: by}, err
}

func (d *Directory) open(ctx context.Context, s *Sealed, of string) (secret sse.Key, err error) {
	const op = "directory: open secret"
	switch {
	case s.GetBy() == "":
		if len(s.GetValue()) != len(secret) {
			return secret, ashlar.E(op, of, ashlar.Corrupt, nil)
		}
		return sse.Key(s.Value), nil
	case d.keys == nil:
		return secret, ashlar.E(op, of, ashlar.Unavailable, errors.New("the gateway has no keyring: keyring-file must name the one that sealed it, "+s.By))
	}
	secret, err = d.keys.Open(ctx, store.SSES3, s.By, s.Value, []byte("ashlar identity "+of))
	if err != nil {
		return secret, ashlar.E(op, of, ashlar.Unavailable, err)
	}
	return secret, nil
}

// secretBytes of the 32 are what clients get, in base64: 40 characters, as AWS's.
const secretBytes = 30

func secretText(k sse.Key) string { return base64.StdEncoding.EncodeToString(k[:secretBytes]) }

// CreateKey gives a user an access key. Its secret is returned here and nowhere else.
func (d *Directory) CreateKey(ctx context.Context, a *iam.Account, user string) (id, secret string, k *AccessKey, err error) {
	id = newAccessKey()
	raw := sse.NewKey()
	k = &AccessKey{Format: format, User: user, Active: true, CreatedNs: d.clock().UnixNano()}
	if k.Account, err = hex.DecodeString(a.Canonical); err != nil {
		return "", "", nil, err
	}
	if k.Secret, err = d.seal(ctx, raw, id); err != nil {
		return "", "", nil, err
	}
	err = d.alter(ctx, a, User, user, func(ch *change, p *Principal) error {
		if len(p.Keys) >= KeysMax {
			return s3.E(s3.LimitExceeded, limitText("Cannot exceed quota for AccessKeysPerUser: %d", KeysMax))
		}
		if there, err := ch.read(accessKeyRow(id), &AccessKey{}); err != nil || there {
			return cmpErr(err, ashlar.E("directory: create key", "", ashlar.Internal, errors.New("an access key came twice")))
		}
		k.UserId = p.Id
		p.Keys = append(p.Keys, id)
		return ch.put(accessKeyRow(id), k)
	})
	return id, secretText(raw), k, err
}

// Keys returns the access keys of a user, in the order of their making. The secrets in
// them are not for anybody.
func (d *Directory) Keys(ctx context.Context, a *iam.Account, user string) (ids []string, keys []*AccessKey, err error) {
	p, err := d.Get(ctx, a, User, user)
	if err != nil {
		return nil, nil, err
	}
	for _, id := range p.Keys {
		k := &AccessKey{}
		version, err := d.get(ctx, accessKeyRow(id), k)
		if err != nil {
			return nil, nil, err
		}
		if version != 0 {
			k.Secret = nil
			ids, keys = append(ids, id), append(keys, k)
		}
	}
	return ids, keys, nil
}

// SetKey switches an access key of a user on or off.
func (d *Directory) SetKey(ctx context.Context, a *iam.Account, user, id string, active bool) error {
	return d.alterKey(ctx, a, user, id, func(ch *change, _ *Principal, k *AccessKey) error {
		k.Active = active
		return ch.put(accessKeyRow(id), k)
	})
}

// DeleteKey deletes an access key of a user.
func (d *Directory) DeleteKey(ctx context.Context, a *iam.Account, user, id string) error {
	return d.alterKey(ctx, a, user, id, func(ch *change, p *Principal, _ *AccessKey) error {
		p.Keys = slices.DeleteFunc(p.Keys, func(k string) bool { return k == id })
		ch.drop(accessKeyRow(id))
		return nil
	})
}

func (d *Directory) alterKey(ctx context.Context, a *iam.Account, user, id string, fn func(*change, *Principal, *AccessKey) error) error {
	return d.alter(ctx, a, User, user, func(ch *change, p *Principal) error {
		if !slices.Contains(p.Keys, id) {
			return s3.E(s3.NoSuchEntity, "The Access Key with id "+id+" cannot be found.")
		}
		k := &AccessKey{}
		if there, err := ch.read(accessKeyRow(id), k); err != nil || !there {
			return cmpErr(err, s3.E(s3.NoSuchEntity, "The Access Key with id "+id+" cannot be found."))
		}
		return fn(ch, p, k)
	})
}

// vault remembers the session secret, which never changes.
type vault struct {
	mu     sync.Mutex
	secret *session.Secret
}

// sessionSecret returns what session tokens are sealed with. make has it made if there
// is none yet; without, the error is session.ErrInvalid: nothing was ever sealed.
func (d *Directory) sessionSecret(ctx context.Context, make bool) (session.Secret, error) {
	d.vault.mu.Lock()
	defer d.vault.mu.Unlock()
	if d.vault.secret != nil {
		return *d.vault.secret, nil
	}
	const of = "session"
	m := &SessionSecret{}
	version, err := d.get(ctx, sessionRow(), m)
	if err == nil && version == 0 && !make {
		err = session.ErrInvalid
	}
	if err == nil && version == 0 {
		err = d.change(ctx, func(ch *change) error {
			m.Reset()
			if there, err := ch.read(sessionRow(), m); err != nil || there {
				return err
			}
			sealed, err := d.seal(ctx, sse.NewKey(), of)
			if err != nil {
				return err
			}
			m = &SessionSecret{Format: format, Secret: sealed, CreatedNs: d.clock().UnixNano()}
			return ch.put(sessionRow(), m)
		})
	}
	if err != nil {
		return session.Secret{}, err
	}
	raw, err := d.open(ctx, m.Secret, of)
	if err != nil {
		return session.Secret{}, err
	}
	secret := session.Secret(raw)
	d.vault.secret = &secret
	return secret, nil
}
